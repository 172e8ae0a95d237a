"""An endless stream of packed batches whose position can be saved and restored."""

import os
from collections.abc import Iterator
from typing import Literal

import numpy as np
import safetensors.numpy
from etils import epath
from jaxtyping import Int

from poly_jax.data.packing import Example, Room, Waiting, pack_rows
from poly_jax.data.stream import ADVICE, Batch, BatchStream
from poly_jax.errors import UserError

# The examples to choose a row's from. More of them leave less padding, and are longer in coming.
_WAITING = 1024


class PackedStream:
    """Packs the examples of an unpacked stream. An example waits for at most as many rows as examples wait.

    Rows depend on the order of the examples alone, so that the same seed gives the same rows.
    """

    def __init__(
        self,
        examples: BatchStream,
        rows: int,
        room: Room,
        most: int,
        packing: Literal["first-fit", "best-fit"],
        start_id: int = 0,
    ) -> None:
        """Makes a stream.

        Args:
          examples: the stream at its start, with any number of examples in a batch.
          rows: number of rows in each packed batch.
          room: number of tokens of the inputs and of the targets of a row, as of the examples.
          most: largest number of examples in a row.
          packing: how a row's examples are chosen; see `next_row`.
          start_id: the id that decoder inputs begin with.
        """
        self._examples = examples
        self._rows, self._room, self._most = rows, room, most
        self._packing, self._start_id = packing, start_id
        self._waiting = Waiting()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return pack_rows([self._row() for _ in range(self._rows)], self._room, self._most, self._start_id)

    def close(self) -> None:
        """End the threads of the unpacked stream."""
        self._examples.close()

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the position to files whose local or remote (gs://) paths begin with `filename`."""
        self._examples.save(filename)
        flat = {
            "inputs": _joined([inputs for inputs, _, _ in self._waiting]),
            "targets": _joined([targets for _, targets, _ in self._waiting]),
            "inputs_lengths": np.asarray([len(inputs) for inputs, _, _ in self._waiting], np.int32),
            "targets_lengths": np.asarray([len(targets) for _, targets, _ in self._waiting], np.int32),
            "task_ids": np.asarray([task for _, _, task in self._waiting], np.int32),
        }
        _waiting_file(filename).write_bytes(safetensors.numpy.save(flat))

    def restore(self, filename: str | os.PathLike[str]) -> None:
        """Go to a saved position.

        Raises:
          UserError: nothing was saved there, it is damaged, or a stream with other settings saved it.
        """
        self._examples.restore(filename)
        path = _waiting_file(filename)
        try:
            saved = safetensors.numpy.load(path.read_bytes())
            inputs = np.split(saved["inputs"], np.cumsum(saved["inputs_lengths"])[:-1])
            targets = np.split(saved["targets"], np.cumsum(saved["targets_lengths"])[:-1])
            self._waiting = Waiting(zip(inputs, targets, saved["task_ids"].tolist(), strict=True))
        # The library raises errors of several types for damaged bytes.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"the examples that wait to be packed, at {path}, are damaged ({reason}); {ADVICE}"
            ) from None

    def _row(self) -> list[Example]:
        while len(self._waiting) < _WAITING:
            self._waiting.add(unpadded(next(self._examples)))
        return self._waiting.take_row(self._room, self._most, self._packing)


def unpadded(batch: Batch) -> list[Example]:
    """Return the examples of a batch with one example to a row."""
    inputs, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    ends = zip(_lengths(inputs), _lengths(targets), strict=True)
    return [
        (inputs[row, :end].copy(), targets[row, :target_end].copy(), int(batch["task_ids"][row]))
        for row, (end, target_end) in enumerate(ends)
    ]


def _lengths(tokens: Int[np.ndarray, "batch length"]) -> list[int]:
    """Number of tokens of each row up to the last one that is not padding."""
    return ((tokens != 0) * np.arange(1, tokens.shape[1] + 1)).max(axis=1).tolist()


def _joined(arrays: list[Int[np.ndarray, "length"]]) -> Int[np.ndarray, "total"]:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)


def _waiting_file(filename: str | os.PathLike[str]) -> epath.Path:
    return epath.Path(os.fspath(filename) + ".waiting.safetensors")
