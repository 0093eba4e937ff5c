"""Panels of auditors that steer what is learned."""
