"""Policies as analysts write them: a function of one decision or of columns, or a file of rules."""
