"""Environments and user models behind one protocol, and the studies that reproduce the papers."""
