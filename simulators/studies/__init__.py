"""One module per study: each reproduces a paper's claims on simulators and prints what was measured."""
