"""The interface of a stream of batches that the training loop reads."""

import os
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int


@runtime_checkable
class Batches(Protocol):
    """An endless stream of batches with a position that can be saved."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Return the stream itself."""
        ...

    def __next__(self) -> dict[str, Any]:
        """Return this host's rows of the next batch."""
        ...

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the position to a file."""
        ...

    def restore(self, filename: str | os.PathLike[str]) -> None:
        """Go to a saved position."""
        ...


def example_tasks(batch: dict[str, np.ndarray]) -> Int[np.ndarray, "examples"]:
    """Return the task id of every example in a batch; several examples share a row where rows are packed."""
    ids = np.asarray(batch["task_ids"])
    if "decoder_segment_ids" not in batch:
        return ids
    present = np.arange(ids.shape[1]) < batch["decoder_segment_ids"].max(axis=1)[:, None]
    return ids[present]
