"""Reads a frozen backbone from whichever kind of checkpoint a path turns out to be."""

import itertools

from etils import epath
from numpy.typing import DTypeLike

from poly_jax.errors import UserError
from poly_jax.interop import single_file
from poly_jax.interop.hugging_face import read_hugging_face
from poly_jax.interop.t5x_checkpoint import is_t5x, read_t5x
from poly_jax.interop.tree import ParameterTree, check_tree

__all__ = ["check_tree", "read_backbone"]

_ACCEPTED = (
    "a T5X checkpoint folder (legacy or Orbax), a Hugging Face folder (config.json and safetensors) or a "
    ".safetensors file that poly_jax wrote"
)
_NAMED = 5


def read_backbone(path: epath.PathLike, dtype: DTypeLike | None = None) -> ParameterTree:
    """The parameters of a checkpoint as nested dictionaries of numpy arrays under T5X's names.

    Args:
      path: a T5X checkpoint of either format (local or gs://), a Hugging Face folder, or a `.safetensors`
        file of `poly_jax.interop.single_file`.
      dtype: floats are cast to it while they are read; None keeps what is stored.

    Raises:
      UserError: nothing there, nothing of a known kind, or what is there is broken.
    """
    place = epath.Path(path).expanduser()
    if not place.exists():
        raise UserError(f"{path} does not exist; give {_ACCEPTED}")
    if is_t5x(place):
        return read_t5x(place, dtype)
    if place.is_dir():
        if (place / "config.json").exists():
            return read_hugging_face(place, dtype)[1]
        raise UserError(f"{path} is a folder with {_content(place)}; give {_ACCEPTED}")
    if place.suffix == ".safetensors":
        return single_file.load(place, dtype)[0]
    raise UserError(f"{path} is a file of another kind; give {_ACCEPTED}")


def _content(folder: epath.Path) -> str:
    found = sorted(child.name for child in itertools.islice(folder.iterdir(), 1000))
    if not found:
        return "nothing in it"
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
