"""How requests of many loops wait in line for one thread."""
