"""Explanations of decisions on record: where their records are, and how each came about."""
