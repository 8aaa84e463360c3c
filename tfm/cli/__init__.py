"""The command line: each command is one file that turns flags into one call."""
