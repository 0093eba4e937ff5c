"""Contextual algorithms that must not fall below a known baseline: what the guard is compared with."""
