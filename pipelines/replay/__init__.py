"""Off-policy evaluation of any policy on any log."""
