"""Commands of whole nights: one or all of them, and two versions side by side."""
