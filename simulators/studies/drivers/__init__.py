"""The study of a driver programme: models of drivers, policies that set their tasks, and what is run."""
