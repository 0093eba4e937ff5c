"""Reward models: regression of rewards on the features of the chosen action in its context."""
