"""Mergeable sums that estimators and intervals are made of."""
