"""Tasks of your own, from JSONL, CSV, TSV and Parquet files and saved Hugging Face data sets."""

from poly_jax.tasks.from_files.metrics import METRICS
from poly_jax.tasks.from_files.tasks import register, task_name

__all__ = ["METRICS", "register", "task_name"]
