"""Evaluation of a new version on the holdout, before the gate."""
