"""Plain seqio tasks, as a user would write them, in which each text names its task."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from poly_jax.data.batches import train_batches
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.task_table import TaskTable

VOCABULARY = seqio.ByteVocabulary()


@pytest.fixture
def registry() -> Iterator[None]:
    """Undo the registrations of a test."""
    tasks, mixtures = dict(seqio.TaskRegistry._REGISTRY), dict(seqio.MixtureRegistry._REGISTRY)
    yield
    seqio.TaskRegistry._REGISTRY, seqio.MixtureRegistry._REGISTRY = tasks, mixtures


@pytest.fixture
def numbered() -> Callable[[str, int], tf.data.Dataset]:
    """Examples '<name> in <number>', '<name> out <number>' as ids: encoding them here saves test time."""

    def read(name: str, size: int) -> tf.data.Dataset:
        texts = {
            feature: [f"{name} {word} {number:02}" for number in range(max(size, 1))]
            for feature, word in (("inputs", "in"), ("targets", "out"))
        }
        ids = {
            feature: np.array([[*VOCABULARY.encode(text), 1] for text in column], np.int32)[:size]
            for feature, column in texts.items()
        }
        return tf.data.Dataset.from_tensor_slices(ids)

    return read


@pytest.fixture
def plain_task(registry: None, numbered: Callable[[str, int], tf.data.Dataset]) -> Callable[..., seqio.Task]:
    """A function that registers a task of `size` numbered examples, or of another source."""

    def register(name: str, size: int = 5, source: seqio.DataSource | None = None, **options: Any) -> Any:
        def read(split: str, shuffle_files: bool) -> tf.data.Dataset:
            return numbered(name, size)

        features = {"inputs": seqio.Feature(VOCABULARY), "targets": seqio.Feature(VOCABULARY)}
        source = source or seqio.FunctionDataSource(read, splits=("train", "test"))
        return seqio.TaskRegistry.add(name, source=source, output_features=features, **options)

    return register


@pytest.fixture
def plain_mixture(plain_task: Callable[..., seqio.Task]) -> str:
    """A mixture of three tasks at unequal rates."""
    for name, size in (("owl", 5), ("ant", 3), ("cat", 4)):
        plain_task(name, size)
    seqio.MixtureRegistry.add("animals", [("owl", 1.0), ("ant", 2.0), ("cat", 5.0)])
    return "animals"


@pytest.fixture
def decode() -> Callable[[Any], str]:
    """A function that turns byte ids into text."""
    return lambda ids: VOCABULARY.decode([int(id) for id in ids])


@pytest.fixture(params=["indexed", "streamed"])
def reading(request: pytest.FixtureRequest) -> str:
    """Each way to read a mixture."""
    return request.param


@pytest.fixture
def stream(reading: str) -> Callable[..., Any]:
    """A function that makes the stream of batches of a mixture or task."""

    def make(name: str, **settings: Any) -> Any:
        usual = {"sequence_length": {"inputs": 12, "targets": 12}, "batch_size": 4, "seed": 1}
        return train_batches(name, TaskTable.of(name), **{**usual, "reading": reading, **settings})

    return make
