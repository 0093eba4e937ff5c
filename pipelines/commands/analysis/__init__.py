"""What an analyst asks: which log, which policy, and whether that policy answers."""
