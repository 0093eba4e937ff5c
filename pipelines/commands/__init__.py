"""The commands of the command line, one file for each stage of a loop's life."""
