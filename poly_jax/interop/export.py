"""A backbone that was trained here as one file that other runs can freeze."""

import dataclasses

import jax
import numpy as np
from etils import epath

from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.interop import single_file
from poly_jax.model.layer_trees import unstack_layers
from poly_jax.training.checkpoints import read_origin, step_folder
from poly_jax.training.mesh import Partitioning
from poly_jax.training.partition import is_adapter, split
from poly_jax.training.restore import restore


def export_backbone(run: str, output: str, experiment: Experiment) -> None:
    """Writes the backbone of a run that trained all parameters, in float32, without adapters.

    The file is that of `poly_jax.interop.single_file`, with T5X's names, layers apart even if they were
    scanned, and the fields of the run's `T5Config` as metadata.

    Args:
      run: folder of the run, or one of its checkpoints.
      output: path of the `.safetensors` file.
      experiment: that of the run.

    Raises:
      UserError: the run froze its backbone, or the file cannot be written.
    """
    if epath.Path(output).suffix != ".safetensors":
        raise UserError(f"--output={output} must end in .safetensors, so that it is known for what it is")
    origin = read_origin(step_folder(run))
    if origin.backbone is not None:
        raise UserError(
            f"{run} trained adapters and left its backbone {origin.backbone} as it was; only the backbone of"
            " a run with train.trainable 'all' can be exported"
        )
    restored = restore(experiment, run, Partitioning().mesh())
    _, backbone = split(restored.parameters, is_adapter)
    arrays = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), unstack_layers(jax.device_get(backbone)))
    single_file.save(output, arrays, dataclasses.asdict(restored.model.config))
