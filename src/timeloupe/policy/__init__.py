"""Policies: whoever plays an episode. Batch of messages in, batch of generations out."""
