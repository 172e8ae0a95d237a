"""The held-out tasks of T0 as used by T-Few: few-shot files, prompts and answer choices."""

from poly_jax.tasks.t0_few_shot.tasks import register, task_name

__all__ = ["register", "task_name"]
