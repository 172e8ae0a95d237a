"""Reads the manifest of a T5X checkpoint: its parameters and the place where each is stored."""

from typing import Any

import numpy as np
from etils import epath
from flax import serialization

from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import read_json
from poly_jax.weights.zarr_arrays import ADVICE, ZarrArray, kvstore

Parameter = ZarrArray | np.ndarray

_SHOWN = 200
_PLACEHOLDER = "PLACEHOLDER://"


def msgpack_parameters(manifest: epath.Path) -> dict[str, Parameter]:
    """Return the parameters that a msgpack manifest lists, by '/'-joined name; none where it has no `target`.

    A leaf is a small array, a TensorStore specification with a relative path (T5X's legacy format), or a
    placeholder string (Orbax before it had `_METADATA`).
    """
    try:
        content = serialization.msgpack_restore(manifest.read_bytes())
        leaves = _leaves(content.get("optimizer", content).get("target"))
        return {name: _located(leaf, manifest.parent) for name, leaf in leaves.items()}
    # The decoders of msgpack and flax raise errors of many types.
    except Exception as e:
        reason = f"{type(e).__name__}: {e}"[:_SHOWN]
        raise UserError(f"{manifest} is not a complete T5X manifest ({reason}); copy it again") from None


def orbax_parameters(metadata: epath.Path) -> dict[str, Parameter]:
    """Return the parameters that Orbax's `_METADATA` lists under `target`, by '/'-joined name."""
    prefix = "target/"
    return {
        name.removeprefix(prefix): array
        for name, array in orbax_arrays(metadata).items()
        if name.startswith(prefix)
    }


def orbax_arrays(metadata: epath.Path, advice: str = ADVICE) -> dict[str, ZarrArray]:
    """Return all arrays that Orbax's `_METADATA` lists, by '/'-joined name.

    Args:
      metadata: path of the file.
      advice: instruction to the user in an error message.

    Raises:
      UserError: the file is missing, or Orbax did not write it.
    """
    content = Fields(read_json(metadata, advice=advice), metadata, advice)
    driver = "zarr3" if content.take("use_zarr3", bool, default=False) else "zarr"
    tree = content.inside("tree_metadata")
    keys = []
    for name in tree:
        entry = tree.inside(name)
        value = entry.inside("value_metadata")
        if not value.take("skip_deserialize", bool, default=False):
            keys.append(_key(entry, advice))
    folder = metadata.parent
    if content.take("use_ocdbt", bool, default=False) and not (folder / "manifest.ocdbt").exists():
        raise UserError(f"{folder / 'manifest.ocdbt'} is missing; {advice}")
    return {"/".join(key): _orbax_array(folder, ".".join(key), driver) for key in keys}


def _key(entry: Fields, advice: str) -> list[str]:
    parts = [Fields(part, entry.place, advice) for part in entry.take_list("key_metadata", dict)]
    key = [str(part.take("key", object)) for part in parts]
    if not key:
        raise UserError(f"{entry.place} names no parameter; {advice}")
    return key


def _leaves(node: Any, name: str = "") -> dict[str, Any]:
    if node is None:
        return {}
    if not isinstance(node, dict) or {"driver", "kvstore", "metadata"} <= node.keys():
        return {name: node}
    leaves = {}
    for key, child in node.items():
        leaves.update(_leaves(child, f"{name}/{key}" if name else str(key)))
    return leaves


def _located(leaf: Any, folder: epath.Path) -> Parameter:
    if isinstance(leaf, dict):
        path = leaf["kvstore"].get("path") or leaf["path"]
        name = path.strip("/")
        if not name or "/" in name or name == "..":
            raise ValueError(f"{path!r} is not a folder beside it")
        if leaf["driver"] not in ("zarr", "zarr3"):
            raise ValueError(f"{name} is stored by the driver {leaf['driver']!r}, not as zarr")
        return ZarrArray(
            location=f"{folder / name}",
            driver=leaf["driver"],
            kvstore=kvstore(folder / name),
            shape=tuple(leaf["metadata"]["shape"]),
        )
    if isinstance(leaf, str) and leaf.startswith(_PLACEHOLDER):
        return _orbax_array(folder, leaf.removeprefix(_PLACEHOLDER), "zarr")
    if not isinstance(leaf, np.ndarray | np.generic):
        raise ValueError(f"{leaf!r} is neither an array nor the place of one")
    # The array is copied, because msgpack gives a read-only view that keeps the whole manifest in memory.
    return np.array(leaf)


def _orbax_array(folder: epath.Path, key: str, driver: str) -> ZarrArray:
    if not (folder / "manifest.ocdbt").exists():
        return ZarrArray(location=f"{folder / key}", driver=driver, kvstore=kvstore(folder / key))
    return ZarrArray(
        location=f"{key} of {folder}",
        driver=driver,
        kvstore={"driver": "ocdbt", "base": kvstore(folder), "path": f"{key}/"},
    )
