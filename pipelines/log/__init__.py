"""The event log: one interface, on Kafka and on a local file."""
