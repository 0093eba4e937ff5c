"""What an estimate must show before it is believed: weights, support, propensities, the quality of the log."""
