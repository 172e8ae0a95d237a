"""Finds out from a T5X checkpoint's manifest which parameters it has and where each is stored."""

import json
from typing import Any

import msgpack
import numpy as np
from etils import epath
from flax import serialization

from poly_jax.errors import UserError
from poly_jax.weights.zarr_arrays import ZarrArray, kvstore

Parameter = ZarrArray | np.ndarray

_PLACEHOLDER = "PLACEHOLDER://"


def msgpack_parameters(manifest: epath.Path) -> dict[str, Parameter]:
    """The parameters that a msgpack manifest lists, by '/'-joined name; none where it has no `target`.

    A leaf is an array (small ones are kept in the manifest), a TensorStore specification with a relative path
    (T5X's legacy format), or a placeholder string (Orbax before it had `_METADATA`).
    """
    try:
        content = serialization.msgpack_restore(manifest.read_bytes())
        leaves = _leaves(content.get("optimizer", content).get("target"))
        return {name: _located(leaf, manifest.parent) for name, leaf in leaves.items()}
    except (msgpack.UnpackException, ValueError, TypeError, KeyError, AttributeError) as e:
        raise UserError(
            f"{manifest} is not a complete T5X manifest ({type(e).__name__}: {e}); copy it again"
        ) from e


def orbax_parameters(metadata: epath.Path) -> dict[str, Parameter]:
    """The parameters that Orbax's `_METADATA` lists under `target`, by '/'-joined name."""
    prefix = "target/"
    return {
        name.removeprefix(prefix): array
        for name, array in orbax_arrays(metadata).items()
        if name.startswith(prefix)
    }


def orbax_arrays(metadata: epath.Path) -> dict[str, ZarrArray]:
    """Everything that Orbax's `_METADATA` lists, by '/'-joined name."""
    try:
        content = json.loads(metadata.read_text())
        driver = "zarr3" if content.get("use_zarr3") else "zarr"
        keys = [
            [str(part["key"]) for part in entry["key_metadata"]]
            for entry in content["tree_metadata"].values()
            if not entry["value_metadata"].get("skip_deserialize")
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UserError(f"{metadata} is not Orbax metadata ({type(e).__name__}: {e}); copy it again") from e
    folder = metadata.parent
    if content.get("use_ocdbt") and not (folder / "manifest.ocdbt").exists():
        raise UserError(f"{folder / 'manifest.ocdbt'} is missing; copy the checkpoint again")
    return {"/".join(key): _orbax_array(folder, ".".join(key), driver) for key in keys}


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
    # A copy of its own: what msgpack gives is a read-only view that keeps the whole manifest alive.
    return np.array(leaf)


def _orbax_array(folder: epath.Path, key: str, driver: str) -> ZarrArray:
    if not (folder / "manifest.ocdbt").exists():
        return ZarrArray(location=f"{folder / key}", driver=driver, kvstore=kvstore(folder / key))
    return ZarrArray(
        location=f"{key} of {folder}",
        driver=driver,
        kvstore={"driver": "ocdbt", "base": kvstore(folder), "path": f"{key}/"},
    )
