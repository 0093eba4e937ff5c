"""The registry of versions on MLflow, and its cache on disk."""
