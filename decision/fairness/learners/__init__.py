"""Learners of fair policies under a panel's constraints, for the study of fairness."""
