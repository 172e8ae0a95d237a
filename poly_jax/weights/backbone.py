"""Reads a frozen backbone from a checkpoint of any supported kind."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from numpy.typing import DTypeLike

from poly_jax.errors import UserError
from poly_jax.weights import backbone_folder, single_file
from poly_jax.weights.hugging_face import open_hugging_face
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.quantized import dequantized_tensors
from poly_jax.weights.t5_shapes import t5_fields
from poly_jax.weights.t5x_checkpoint import is_t5x, open_t5x
from poly_jax.weights.tensors import Tensor, read_each
from poly_jax.weights.tree import ParameterTree, check_tree, unflatten
from poly_jax.weights.zarr_arrays import AT_ONCE, explained

__all__ = ["Backbone", "check_tree", "open_backbone", "read_backbone"]

_ACCEPTED = (
    "a T5X checkpoint folder (legacy or Orbax), a Hugging Face folder (config.json and safetensors) or a "
    ".safetensors file or folder that poly_jax wrote"
)
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone on disk, whose parameters are not read yet.

    Attributes:
      path: path of the checkpoint.
      kind: kind of the checkpoint: "t5x", "hugging_face" or "poly_jax".
      tensors: its parameters by T5X's names, one per layer.
      fields: values of `T5Config` fields that the checkpoint states; empty where it states none.
    """

    path: epath.Path
    kind: str
    tensors: dict[str, Tensor]
    fields: dict[str, Any]

    def stated_fields(self) -> dict[str, Any]:
        """Return the `T5Config` fields that the checkpoint states, or else that its parameters' shapes imply.

        Raises:
          UserError: the parameters do not belong to a T5 that this project's model computes.
        """
        return self.fields or t5_fields(self.tensors, self.path)

    @property
    def at_once(self) -> int:
        """The number of arrays that are read ahead, in threads."""
        return AT_ONCE if self.kind == "t5x" else 1

    def read_each(
        self, dtype: DTypeLike | None = None, names: Iterable[str] | None = None
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Read parameters one after another in the order of their names.

        Args:
          dtype: dtype that floats are cast to; None keeps the stored dtype.
          names: the names of the parameters; None for all.
        """
        chosen = sorted(self.tensors if names is None else names)
        return read_each({name: self.tensors[name] for name in chosen}, dtype, self.at_once)


def open_backbone(path: epath.PathLike) -> Backbone:
    """Open the backbone at a path, to read its parameters one at a time.

    Args:
      path: path of a T5X checkpoint of either format (local or gs://), a Hugging Face folder, or a backbone
        that `poly_jax.weights.single_file` or `backbone_folder` wrote.

    Raises:
      UserError: there is nothing at the path, or the checkpoint is broken, of an unknown kind or holds
        something else than floats.
    """
    with explained(path):
        opened = _open(path)
    for name, tensor in opened.tensors.items():
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise UserError(
                f"{path}: {name} holds {tensor.dtype}, not floats; import or export the backbone again"
            )
    return opened


def _open(path: epath.PathLike) -> Backbone:
    place = epath.Path(path).expanduser()
    if not place.exists():
        raise UserError(f"{path} does not exist; give {_ACCEPTED}")
    if is_t5x(place):
        # A checkpoint that was trained with adapters has them beside the backbone.
        tensors = {name: tensor for name, tensor in open_t5x(place).items() if not is_adapter_parameter(name)}
        return Backbone(place, "t5x", tensors, {})
    if place.is_dir():
        if (place / "config.json").exists():
            fields, tensors = open_hugging_face(place)
            return Backbone(place, "hugging_face", tensors, fields)
        if backbone_folder.is_folder(place):
            tensors, fields = backbone_folder.open_folder(place)
            return Backbone(place, "poly_jax", dequantized_tensors(tensors, path), fields)
        raise UserError(f"{path} is a folder with {_content(place)}; give {_ACCEPTED}")
    if place.suffix == ".safetensors":
        tensors, fields = single_file.open_file(place)
        return Backbone(place, "poly_jax", dequantized_tensors(tensors, path), fields)
    raise UserError(f"{path} is a file of another kind; give {_ACCEPTED}")


def read_backbone(path: epath.PathLike, dtype: DTypeLike | None = None) -> ParameterTree:
    """Read the parameters at a path as nested dictionaries of numpy arrays under T5X's names.

    Args:
      path: see `open_backbone`.
      dtype: dtype that floats are cast to while they are read; None keeps the stored dtype.

    Raises:
      UserError: see `open_backbone`.
    """
    return unflatten(dict(open_backbone(path).read_each(dtype)))


def _content(folder: epath.Path) -> str:
    found = sorted(child.name for child in itertools.islice(folder.iterdir(), 1000))
    if not found:
        return "nothing in it"
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
