"""Prints the folder of the shipped gin files, as other programs have to be told it."""

from poly_jax.configuration.files import gin_root

print(gin_root())
