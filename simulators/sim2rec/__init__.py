"""Sim2Rec: one policy for many simulators, that finds out from behaviour which of them it is in."""
