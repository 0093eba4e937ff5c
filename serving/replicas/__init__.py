"""What replicas agree on: one answer per event id, one version and weight per episode."""
