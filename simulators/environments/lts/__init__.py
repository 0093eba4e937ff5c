"""Long-term satisfaction: the environment, its tasks and its planner."""
