"""Training loops, each one file that reads top to bottom, and the pure functions they stand on."""
