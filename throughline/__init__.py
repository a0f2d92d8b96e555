"""The command line: the only code that may name every service."""
