"""The one way into a model: token episodes, expansion to tensors, chat rendering, loading, forward passes."""
