"""The held-out tasks of T0 as T-Few adapts to them: few-shot files, prompts, answer choices."""

from poly_jax.tasks.t0_few_shot.tasks import register, task_name

__all__ = ["register", "task_name"]
