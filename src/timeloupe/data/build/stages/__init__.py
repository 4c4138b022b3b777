"""The stages of a build, one a file; ``registry.py`` names them all."""
