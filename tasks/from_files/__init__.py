"""Tasks of your own as seqio tasks: JSONL, CSV, TSV, Parquet, and folders that Hugging Face `datasets` saved."""

from poly_jax.tasks.from_files.metrics import METRICS
from poly_jax.tasks.from_files.tasks import register, task_name

__all__ = ["METRICS", "register", "task_name"]
