"""Training of a new version from the interactions of a window."""
