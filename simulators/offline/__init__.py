"""Policies with memory from a log alone: whose trajectories count, a critic of them, a policy cloned by it."""
