"""Super-NaturalInstructions as seqio tasks, from the folder of its original task files."""

from poly_jax.tasks.super_natural_instructions.metrics import aggregate
from poly_jax.tasks.super_natural_instructions.tasks import categories, register, task_name

__all__ = ["aggregate", "categories", "register", "task_name"]
