"""P3's tasks for rank classification, `<template>_score_eval`, as seqio tasks (arXiv 2110.08207)."""

from poly_jax.tasks.t0_score_eval.tasks import register

__all__ = ["register"]
