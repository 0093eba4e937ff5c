"""Off-policy evaluation: what a policy that never ran would have earned, and how sure that is.

Every estimator is a handful of sums: rows enter once, shards add up, and an estimate carries its interval, effective
sample size and the reasons for which it should not be trusted.
"""
