"""The tensors of a Hugging Face folder, in one safetensors file or in shards."""

import pathlib

import numpy as np

from poly_jax.errors import UserError
from poly_jax.interop.hugging_face_config import read_json
from poly_jax.interop.safetensors_reader import read_tensor, tensor_shapes
from poly_jax.interop.tree import listing

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


class Weights:
    """Where each tensor of a folder is and its shape; nothing is loaded before `read`.

    Attributes:
      shapes: shape of every tensor by name.

    Raises:
      UserError: no safetensors, or a shard or tensor that the index names is not there.
    """

    def __init__(self, folder: pathlib.Path):
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, pathlib.Path] = {}
        if (folder / _SINGLE).exists():
            self._add(folder / _SINGLE)
        elif (folder / _INDEX).exists():
            self._add_shards(folder / _INDEX)
        else:
            raise UserError(_nothing_readable(folder))

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype it is stored in."""
        return read_tensor(self._files[name], name)

    def _add(self, file: pathlib.Path) -> None:
        shapes = tensor_shapes(file)
        self.shapes.update(shapes)
        self._files.update(dict.fromkeys(shapes, file))

    def _add_shards(self, index: pathlib.Path) -> None:
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise UserError(f"{index} has no 'weight_map'; copy it again")
        for shard in sorted(set(shards.values())):
            if pathlib.PurePath(shard).name != shard:
                raise UserError(
                    f"{index} names a shard {shard!r} outside its folder; use an index of plain names"
                )
            self._add(index.parent / shard)
        lost = [name for name, shard in shards.items() if self._files.get(name) != index.parent / shard]
        if lost:
            raise UserError(
                f"{index} lists {len(lost)} tensors that their shards do not hold ({listing(lost)})"
            )


def _nothing_readable(folder: pathlib.Path) -> str:
    pickled = [f.name for f in sorted(folder.glob("*")) if f.suffix in _PICKLED]
    if pickled:
        return (
            f"{folder} has its weights in a pickle ({pickled[0]}), which can run code when read; convert it "
            "to safetensors: AutoModelForSeq2SeqLM.from_pretrained(old).save_pretrained(new) of transformers"
        )
    return f"{folder} has neither {_SINGLE} nor {_INDEX}; copy the model's safetensors there"
