"""The command line: one small file per command; heavy imports wait until a command runs."""
