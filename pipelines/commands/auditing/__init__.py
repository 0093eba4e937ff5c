"""`decision audit`: the panels of auditors, the people on them, the proof of their log, and what callers reach."""
