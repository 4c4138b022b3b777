"""Rows of training data in the formats of the releases and libraries, read and written; see ``registry.py``."""
