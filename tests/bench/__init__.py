"""Benchmarks: runnable modules that print ratios against a reference timed in alternation in the same run."""
