"""Neural networks in a notebook: a model, and one's own PyTorch module as the layers of a study."""
