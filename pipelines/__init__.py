"""Steps and adapters between log, lake, registry and service, and the command line."""
