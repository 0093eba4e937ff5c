"""Features of a loop: Feast views, their history, lookups, uploads and streams."""
