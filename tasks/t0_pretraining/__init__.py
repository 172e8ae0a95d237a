"""The training mixture of T0, from P3 as published or from JSONL files of prompted rows."""

from poly_jax.tasks.t0_pretraining.tasks import register, task_name

__all__ = ["register", "task_name"]
