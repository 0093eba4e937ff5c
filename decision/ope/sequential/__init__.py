"""Estimators for sequences: slates and trajectories."""
