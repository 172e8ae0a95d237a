"""The commands of `poly-jax`, one module each; a new module here is a new command."""
