"""An endless stream of packed batches whose position can be saved and restored."""

import os
from collections.abc import Iterator

import safetensors.numpy
from etils import epath

from poly_jax.data.example_sequences import Examples
from poly_jax.data.packing import Example, Fit, Room, Waiting, pack_rows
from poly_jax.data.position import ADVICE
from poly_jax.data.stream import Batch
from poly_jax.errors import UserError

# The examples to choose a row's from. More of them leave less padding, and are longer in coming.
_WAITING = 1024


class PackedStream:
    """Packs the examples of an unpacked stream. An example waits for at most as many rows as examples wait.

    Rows depend on the order of the examples alone, so that the same seed gives the same rows.
    """

    def __init__(
        self,
        examples: Examples,
        rows: int,
        room: Room,
        most: int,
        packing: Fit,
        start_id: int = 0,
        share: slice = slice(None),
    ) -> None:
        """Makes a stream.

        Args:
          examples: the examples at their start.
          rows: number of rows in each packed batch of all that share the examples.
          room: number of tokens of the inputs and of the targets of a row, as of the examples.
          most: largest number of examples in a row.
          packing: way to choose a row's examples; see `Waiting.take_row`.
          start_id: the id that decoder inputs begin with.
          share: this host's rows of a batch, where hosts share the examples.
        """
        self._examples = examples
        self._rows, self._room, self._most = rows, room, most
        self._packing, self._start_id, self._share = packing, start_id, share
        self._waiting = Waiting()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        rows = [self._row() for _ in range(self._rows)][self._share]
        return pack_rows(rows, self._room, self._most, self._start_id)

    def close(self) -> None:
        """End the threads of the unpacked stream."""
        self._examples.close()

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the position to files whose local or remote (gs://) paths begin with `filename`."""
        self._examples.save(filename)
        arrays = self._examples.stored(list(self._waiting))
        _waiting_file(filename).write_bytes(safetensors.numpy.save(arrays))

    def restore(self, filename: str | os.PathLike[str]) -> None:
        """Go to a saved position.

        Raises:
          UserError: nothing was saved there, it is damaged, or a stream with other settings saved it.
        """
        self._examples.restore(filename)
        path = _waiting_file(filename)
        try:
            arrays = safetensors.numpy.load(path.read_bytes())
            self._waiting = Waiting(self._examples.of_stored(arrays))
        # The library raises errors of several types for damaged bytes.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"the examples that wait to be packed, at {path}, are damaged ({reason}); {ADVICE}"
            ) from None

    def _row(self) -> list[Example]:
        while len(self._waiting) < _WAITING:
            self._waiting.add(self._examples.take())
        return self._waiting.take_row(self._room, self._most, self._packing)


def _waiting_file(filename: str | os.PathLike[str]) -> epath.Path:
    return epath.Path(os.fspath(filename) + ".waiting.safetensors")
