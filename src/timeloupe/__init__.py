"""Thinking with videos: skim, ground a moment, crop it at a higher frame rate, refine or answer, show the evidence."""

__version__ = "0.1.0"
