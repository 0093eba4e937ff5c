"""From the log to the lake: forwarding, parsing, deduplication, commits."""
