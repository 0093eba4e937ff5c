"""Conservative exploration in tabular episodic decision processes, batched over independent runs."""
