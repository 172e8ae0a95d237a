"""Paths of the benchmark's pretrained T5, which ships with the package."""

import importlib.resources


def backbone() -> str:
    """Path of the weights that `recipes/skillbench/backbone.gin` trained."""
    return str(importlib.resources.files("poly_jax.tasks.skillbench") / "backbone.safetensors")


def backbone_in_words() -> str:
    """Path of the weights that `recipes/skillbench/backbone_in_words.gin` trained, for inputs in words."""
    return str(importlib.resources.files("poly_jax.tasks.skillbench") / "backbone_in_words.safetensors")
