"""Several policies and estimators over one pass of rows."""
