"""Divides the instances of a task file into seqio splits.

Sizes and order are the same as in the published runs. The first 100 instances of a test task are its test set
(Wang et al., arXiv 2204.07705), and the rest are its pool of few-shot examples. The instances of a train task
are shuffled, and only the first ones are used (Caccia et al., arXiv 2211.03831).
"""

import random
from collections.abc import Mapping, Sequence

from poly_jax.tasks.super_natural_instructions.reading import Instance

NUM_TEST = 100
NUM_VALIDATION = 100

Splits = Mapping[str, tuple[Instance, ...]]


def train_task_splits(instances: Sequence[Instance], *, seed: int, max_instances: int) -> Splits:
    """Split a shuffled train task: `train` has up to `max_instances`, `validation` up to 100 more."""
    shuffled = _shuffled(instances, seed)
    return _filled(
        {
            "train": shuffled[:max_instances],
            "validation": shuffled[max_instances : max_instances + NUM_VALIDATION],
        }
    )


def test_task_splits(instances: Sequence[Instance], *, seeds: Sequence[int], shots: int) -> Splits:
    """Split a test task: `test` has the first 100 instances; each few-shot split has `shots` of the others.

    `train_<seed>` and `validation_<seed>` are the few-shot splits of a seed, which shuffles the instances.
    `train` and `validation` are those of the first seed.
    """
    splits = {"test": tuple(instances[:NUM_TEST])}
    for seed in reversed(seeds):
        pool = _shuffled(instances[NUM_TEST:], seed)
        train, validation = pool[:shots], pool[shots : 2 * shots]
        splits |= {f"train_{seed}": train, f"validation_{seed}": validation}
        splits |= {"train": train, "validation": validation}
    return _filled(splits)


def _shuffled(instances: Sequence[Instance], seed: int) -> tuple[Instance, ...]:
    order = list(instances)
    random.Random(seed).shuffle(order)
    return tuple(order)


def _filled(splits: Splits) -> Splits:
    return {name: instances for name, instances in splits.items() if instances}
