"""How long things are kept: what goes with age, and what holds it back."""
