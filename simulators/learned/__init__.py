"""Simulators learned from logged trajectories, and what tells whether they can be trusted with an action."""
