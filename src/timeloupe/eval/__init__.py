"""Scoring: metrics over trajectories, comparisons, reports."""
