"""Readers of other systems' logs, one format a file; each yields tables for `pipelines.formats.store.save_import`."""
