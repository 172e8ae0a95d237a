"""`poly-jax data`: shows what the model sees of its data, without a model."""
