"""What decisions look like beside those of a training, and where a fall of rewards or a lift comes from."""

PROFILE_FILE = "profile.json"
"""Name of the file, beside a version's model, that says what its training data look like."""
