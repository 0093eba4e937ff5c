"""The operator's console: loops at a glance, a loop, a decision, and actions behind confirmations."""
