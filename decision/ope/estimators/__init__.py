"""Point estimators of a policy's value, one per file, each a handful of mergeable sums."""
