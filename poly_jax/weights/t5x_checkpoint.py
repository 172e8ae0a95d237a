"""Reads the model parameters of T5X checkpoints of both formats, without T5X."""

import re

import numpy as np
from etils import epath

from poly_jax.errors import UserError
from poly_jax.weights.layers_apart import layers_apart
from poly_jax.weights.t5x_manifest import Parameter, msgpack_parameters, orbax_parameters
from poly_jax.weights.tensors import Tensor, of_tree
from poly_jax.weights.tree import unflatten
from poly_jax.weights.zarr_arrays import ZarrArray, explained, open_arrays

_STEP = re.compile(r"checkpoint_(\d+)")


def is_t5x(path: epath.PathLike) -> bool:
    """Whether `open_t5x` treats this path as a T5X checkpoint, complete or not."""
    return _find(path) is not None


def checkpoint_folder(path: epath.PathLike) -> epath.Path:
    """Find the folder with the arrays of a checkpoint, or of the newest checkpoint of a run.

    Raises:
      UserError: the path is not a T5X checkpoint.
    """
    folder = _find(path)
    if folder is None:
        raise UserError(
            f"{path} is not a T5X checkpoint: it has neither a msgpack file `checkpoint` nor `state/`"
        )
    return folder


def open_t5x(path: epath.PathLike) -> dict[str, Tensor]:
    """Open the parameters of a T5X checkpoint by T5X's '/'-joined names, to be read one at a time.

    Two formats are supported: the legacy format (a msgpack file `checkpoint` with zarr folders `target.*`
    beside it, as in the public gs://t5-data checkpoints) and Orbax (`state/`, with or without OCDBT). Layers
    that are stacked in one array are separated. Optimizer state is not read.

    Args:
      path: folder of a checkpoint, or of a run (its newest `checkpoint_<step>` is read); local or gs://.

    Raises:
      UserError: the path is not a T5X checkpoint, or one of its files is missing or broken.
    """
    folder = checkpoint_folder(path)
    parameters = _parameters(folder)
    if not parameters:
        raise UserError(
            f"{folder} holds no model parameters (`target`); it is not the train state of a T5X model"
        )
    stored = {name: value for name, value in parameters.items() if isinstance(value, ZarrArray)}
    inside = {name: value for name, value in parameters.items() if isinstance(value, np.ndarray)}
    tensors = open_arrays(stored) | of_tree(unflatten(inside))
    return layers_apart({name: tensors[name] for name in parameters}, path)


def _parameters(folder: epath.Path) -> dict[str, Parameter]:
    manifest = folder / "checkpoint"
    parameters = msgpack_parameters(manifest) if manifest.exists() else {}
    if not parameters and (metadata := folder / "_METADATA").exists():
        parameters = orbax_parameters(metadata)
    if not parameters and not manifest.exists() and not metadata.exists():
        raise UserError(
            f"{folder} has no file `checkpoint` or `_METADATA`, which lists its parameters; copy it again"
        )
    return parameters


def _find(path: epath.PathLike) -> epath.Path | None:
    """Find the folder that holds the manifest and the arrays of a checkpoint or of a run's newest one."""
    folder = epath.Path(path).expanduser()
    with explained(path):
        if folder.name == "checkpoint" and folder.is_file():
            folder = folder.parent
        if not folder.is_dir():
            return None
        steps = {int(m[1]): child for child in folder.iterdir() if (m := _STEP.fullmatch(child.name))}
        if steps:
            folder = steps[max(steps)]
        return next((f for f in (folder / "state", folder) if _holds_checkpoint(f)), None)


def _holds_checkpoint(folder: epath.Path) -> bool:
    manifest = folder / "checkpoint"
    if manifest.is_file():
        with manifest.open("rb") as f:
            first = f.read(1)
        # TensorFlow also writes a file of this name, which is text; T5X's file is a msgpack map.
        if first and (first[0] in (0xDE, 0xDF) or 0x80 <= first[0] <= 0x8F):
            return True
    if (folder / "_METADATA").exists() or (folder / "manifest.ocdbt").exists():
        return True
    return folder.is_dir() and any(child.name.startswith("target.") for child in folder.iterdir())
