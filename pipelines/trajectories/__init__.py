"""A loop's log read user by user: whole histories in order of time, and windows of them as arrays with a mask."""
