"""An old log, played against the loop that is to take over: what would answer differently, and what to do."""
