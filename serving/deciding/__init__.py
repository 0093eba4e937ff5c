"""What happens to a question until it is an answer that waits for the disk."""
