"""Training, ranking and data preparation, timed; training and ranking against PyTorch."""
