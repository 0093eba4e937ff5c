"""Who does the parts of a pass over a log: this process, or a Ray cluster; the results are the same."""
