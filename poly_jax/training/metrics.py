"""Writes the scalars of a run to TensorBoard and to a file of JSON lines."""

import json
from collections.abc import Mapping

from etils import epath

from poly_jax.data.quiet import tf
from poly_jax.training.metrics_file import FILE, forget_after


class ScalarWriter:
    """Appends to a run's TensorBoard events, and to `metrics.jsonl`: `{"step": 100, "loss": 1.5}`."""

    def __init__(self, folder: epath.Path) -> None:
        """Opens both files in the run's folder."""
        self._lines = (folder / FILE).open("a")
        # clu's writers do the same, but import Keras with TensorBoard's hyperparameters.
        self._events = tf.summary.create_file_writer(str(folder))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars after a step, and make them visible to readers."""
        values = {name: float(value) for name, value in scalars.items()}
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        with self._events.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._events.flush()

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()
        self._events.close()


def scalar_writer(folder: epath.Path, step: int) -> ScalarWriter:
    """Make a writer of the scalars after a step, which writes TensorBoard events and `metrics.jsonl`.

    Lines of later steps come from a run that was stopped after its last checkpoint. They are deleted, because
    the run takes these steps again.

    Raises:
      UserError: `metrics.jsonl` holds something other than metrics.
    """
    folder.mkdir(parents=True, exist_ok=True)
    forget_after(folder / FILE, step)
    return ScalarWriter(folder)
