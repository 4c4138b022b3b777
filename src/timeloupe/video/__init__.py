"""Exact frames by time: probing, sampling, decoding straight to size, a bounded cache."""
