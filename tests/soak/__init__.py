"""Long tests in full: each prints a table, then one JSON line; a short form of each stands among the tests."""
