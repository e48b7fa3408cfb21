"""The verbs of the command line: each file adds its arguments to the parser and calls what does the work."""
