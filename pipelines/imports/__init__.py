"""Readers of other systems' logs, one format a file; each yields tables for `pipelines.importing.save_import`."""
