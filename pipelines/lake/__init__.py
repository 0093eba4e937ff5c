"""The lake: Delta tables, their schemas and files."""
