"""What decisions look like beside those that a version was trained on, and where a fall of rewards comes from."""

PROFILE_FILE = "profile.json"
"""Name of the file, beside a version's model, that says what its training data look like."""
