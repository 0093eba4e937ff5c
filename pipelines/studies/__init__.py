"""Studies that reproduce papers: their runs, tables and reports."""
