"""Exploration rules: expected rewards in, probabilities out, on ragged flat arrays."""
