"""The episode loop: what the model is shown, what its tool does, and when an episode ends."""
