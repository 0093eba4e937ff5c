"""The tests, mirroring the packages. A package of its own, because some distributions install one of this name."""
