"""The one path from an episode to model input, and the model's forward pass: layout, frames, positions, expansion."""
