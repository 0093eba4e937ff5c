"""The HTTP interfaces of the service."""
