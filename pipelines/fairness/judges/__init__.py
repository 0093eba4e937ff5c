"""The judges of a panel: whether they are of several kinds, and what follows from it."""
