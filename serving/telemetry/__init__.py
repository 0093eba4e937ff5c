"""What a running service tells of itself: the metrics that there are, and traces of requests."""
