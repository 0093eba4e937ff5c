"""Commands for who comes from another system."""
