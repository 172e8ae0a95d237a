"""Opens the tensors of a model whose shards an index lists, as in Hugging Face's large models."""

import pathlib
from collections.abc import Callable

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.json_file import read_json
from poly_jax.weights.tensors import Tensor
from poly_jax.weights.tree import listing


def open_shards(
    index: pathlib.Path, open_file: Callable[[pathlib.Path], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Open the tensors of all shards by name, without reading them.

    Args:
      index: path of a JSON file with a `weight_map` from tensor to file.
      open_file: function that opens the tensors of one shard.

    Raises:
      UserError: the index is broken, a shard or tensor that it names is missing, or a shard is outside its
        folder.
    """
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{index} has no 'weight_map'; copy it again")
    tensors: dict[str, Tensor] = {}
    found: dict[str, str] = {}
    for name, shard in places.items():
        if not isinstance(shard, str):
            raise UserError(f"{index} gives no file for {name}; copy it again")
        if pathlib.PurePath(shard).name != shard:
            raise UserError(
                f"{index} names a shard {shard!r} outside its folder; use an index of plain names"
            )
    for shard in sorted(set(map(str, places.values()))):
        there = open_file(index.parent / shard)
        tensors |= there
        found |= dict.fromkeys(there, shard)
    lost = [name for name, shard in places.items() if found.get(name) != shard]
    if lost:
        raise UserError(
            f"{index} lists {counted(len(lost), 'tensor')} that their shards do not hold ({listing(lost)})"
        )
    return tensors
