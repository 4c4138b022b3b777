"""Rewards: one file per published method, from a trajectory to named score parts. Pure functions."""
