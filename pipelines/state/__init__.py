"""What several machines must agree on: a versioned map with compare-and-set, and leases."""
