"""Commands that keep an installation: what goes with age, and copies to come back from."""
