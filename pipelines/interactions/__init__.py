"""Decisions joined with their outcomes, their counters, and the arrays that trainers read."""
