"""The path of the benchmark's pretrained T5, which ships with the package."""

import importlib.resources


def backbone() -> str:
    """Path of the weights that `recipes/skillbench/backbone.gin` trained."""
    return str(importlib.resources.files("poly_jax.tasks.skillbench") / "backbone.safetensors")
