"""Environments and user models behind one protocol."""
