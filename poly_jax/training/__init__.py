"""Mesh, train state, optimizers, checkpoints and the training loop."""
