"""Intervals of a value, one method per file."""
