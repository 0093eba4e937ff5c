"""The serving guard: how far a candidate may be mixed in, as evidence comes."""
