"""Promotion and rollback of versions, and the watch over promoted ones."""
