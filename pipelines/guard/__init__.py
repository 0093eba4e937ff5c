"""The guard at run time: evidence from settled decisions, the moves it allows, and the weight that replicas serve."""
