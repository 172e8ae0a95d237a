"""CrossFit (the NLP Few-shot Gym, arXiv 2104.08835) as seqio tasks, from its folder of TSV files."""

from poly_jax.tasks.crossfit.relative_gain import average_relative_gain, mean_of_samples, median_of_samples
from poly_jax.tasks.crossfit.tasks import register, task_name, task_names
from poly_jax.tasks.crossfit.training_steps import training_steps

__all__ = [
    "average_relative_gain",
    "mean_of_samples",
    "median_of_samples",
    "register",
    "task_name",
    "task_names",
    "training_steps",
]
