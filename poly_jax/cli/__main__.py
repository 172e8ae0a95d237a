"""`python -m poly_jax.cli`, the same as `poly-jax`."""

from poly_jax.cli import program

program()
