"""Thin adapters to other training and serving engines; each imports its engine only when used."""
