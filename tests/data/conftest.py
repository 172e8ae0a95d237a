"""Plain seqio tasks, as a user would write them, whose texts say which task they are from."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from poly_jax.data.quiet import seqio, tf

VOCABULARY = seqio.ByteVocabulary()


@pytest.fixture
def registry() -> Iterator[None]:
    """Undoes what a test registers."""
    tasks, mixtures = dict(seqio.TaskRegistry._REGISTRY), dict(seqio.MixtureRegistry._REGISTRY)
    yield
    seqio.TaskRegistry._REGISTRY, seqio.MixtureRegistry._REGISTRY = tasks, mixtures


@pytest.fixture
def plain_task(registry: None) -> Callable[..., seqio.Task]:
    """Registers a task of `size` examples: input '<name> in <number>', target '<name> out <number>'."""

    def register(name: str, size: int = 5, source: seqio.DataSource | None = None, **options: Any) -> Any:
        def read(split: str, shuffle_files: bool) -> tf.data.Dataset:
            numbers = range(size)
            columns = {
                "inputs": tf.constant([f"{name} in {number}" for number in numbers], tf.string, [size]),
                "targets": tf.constant([f"{name} out {number}" for number in numbers], tf.string, [size]),
            }
            return tf.data.Dataset.from_tensor_slices(columns)

        options.setdefault("preprocessors", [seqio.preprocessors.tokenize_and_append_eos])
        return seqio.TaskRegistry.add(
            name,
            source=source or seqio.FunctionDataSource(read, splits=("train", "test")),
            output_features={
                "inputs": seqio.Feature(VOCABULARY),
                "targets": seqio.Feature(VOCABULARY),
            },
            **options,
        )

    return register


@pytest.fixture
def plain_mixture(plain_task: Callable[..., seqio.Task]) -> str:
    """A user's mixture of three tasks at unequal rates."""
    for name, size in (("owl", 5), ("ant", 3), ("cat", 4)):
        plain_task(name, size)
    seqio.MixtureRegistry.add("animals", [("owl", 1.0), ("ant", 2.0), ("cat", 5.0)])
    return "animals"


@pytest.fixture
def decode() -> Callable[[Any], str]:
    """Text of byte ids."""
    return lambda ids: VOCABULARY.decode([int(id) for id in ids])
