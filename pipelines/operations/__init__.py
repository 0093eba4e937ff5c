"""What runs an installation: processes, status, initialisation, erasure."""
