"""Batches of the first examples of one task, which an analysis of a run looks at."""

import itertools
from collections.abc import Iterator

import numpy as np
from jax.sharding import Mesh

from poly_jax.data.batches import eval_batches
from poly_jax.experiment import Data
from poly_jax.training.mesh import row_devices
from poly_jax.training.restore import Restored


def first_batches(
    restored: Restored, data: Data, mesh: Mesh, task: str, n_examples: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of equal size with a task's first examples, from the split that the run was trained on.

    Args:
      restored: the run.
      data: its data; the tasks are registered.
      mesh: the devices over which a batch can be divided.
      task: name of the task.
      n_examples: number of examples; all of them where the task has fewer.

    Yields:
      Batches as the model takes them. Rows behind the last example are padding: all of their tokens are 0.

    Raises:
      UserError: the task is not registered, or lacks the split.
    """
    devices = row_devices(mesh)
    size = -(-min(n_examples, data.batch_size) // devices) * devices
    batches = eval_batches(
        task,
        restored.table,
        split=data.split,
        sequence_length=data.sequence_length,
        batch_size=size,
        start_id=restored.model.config.decoder_start_id,
    )
    for number, batch in enumerate(itertools.islice(batches, -(-n_examples // size))):
        for name in ("encoder_input_tokens", "decoder_target_tokens", "decoder_loss_weights"):
            batch[name][max(n_examples - number * size, 0) :] = 0
        yield batch
