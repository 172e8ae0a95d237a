"""Parameters: their names and axes, trees, tensors on disk and the hash of their contents."""
