"""What people see of pairs: auditors of those that they judged, owners of what a verdict changed."""
