"""What all programs of the benchmarks train on, and how large their adapters are."""

from collections.abc import Callable

import numpy as np

METHODS = ("full", "LoRA", "Poly", "MHR", "IA3")
TASKS, SKILLS, SPLITS, RANK = 16, 8, 8, 16
RATE = 1e-3

Batch = dict[str, np.ndarray]
Step = Callable[[], float]
"""Takes a training step and returns the number of tokens in it that are not padding."""


def tokens_in(batch: Batch) -> float:
    """Number of tokens that are not padding."""
    return float((batch["encoder_input_tokens"] > 0).sum() + (batch["decoder_target_tokens"] > 0).sum())


def random_batch(vocabulary: int, rows: int, inputs: int, targets: int) -> Batch:
    """Rows without padding."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, vocabulary, (rows, inputs)).astype(np.int32)
    answers = rng.integers(2, vocabulary, (rows, targets)).astype(np.int32)
    return {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": np.pad(answers, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": answers,
        "decoder_loss_weights": np.ones_like(answers),
        "task_ids": np.arange(rows, dtype=np.int32) % TASKS,
    }
