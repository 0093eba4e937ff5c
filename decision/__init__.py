"""The decision core: pure functions over arrays and records."""
