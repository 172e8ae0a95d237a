"""Reads the skills and routers of a PEFT Poly adapter folder."""

import os
import pathlib
import re
from typing import Any

from poly_jax.errors import UserError
from poly_jax.interop import names
from poly_jax.interop.json_file import read_json
from poly_jax.interop.safetensors_reader import open_tensors
from poly_jax.interop.tree import ParameterTree, check_tree, listing, unflatten

_PREFIX = "base_model.model."
_LEAVES = {
    "poly_lora_A": "skills/lora_a",
    "poly_lora_B": "skills/lora_b",
    "poly_router.module_logits": "router/logits",
}


def read_peft_poly(folder: str | os.PathLike) -> tuple[dict[str, Any], ParameterTree]:
    """The configuration and parameters of an adapter that PEFT's Poly saved.

    PEFT scales the update by 1 / r, that is alpha 1, and gives every adapted map a router of its own.

    Args:
      folder: local folder with `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
      `n_tasks`, `n_skills`, `n_splits`, `rank`, `alpha`, `granularity` and the adapted `sites` (paths of
      `poly_jax.model.sites`); and per adapted map `skills/lora_a` [h, K, d_in/h, r], `skills/lora_b`
      [h, K, r, d_out/h] and `router/logits` [T, h, K] in nested dictionaries.

    Raises:
      UserError: another kind of adapter, or a file or tensor that is missing, broken, unknown or of another
        shape than the config says.
    """
    folder = pathlib.Path(folder).expanduser()
    config = _config(folder / "adapter_config.json")
    file = folder / "adapter_model.safetensors"
    if not file.exists() and (folder / "adapter_model.bin").exists():
        raise UserError(
            f"{folder} has its weights in a pickle (adapter_model.bin), which can run code when read; "
            "save the adapter again with PEFT's save_pretrained(folder, safe_serialization=True)"
        )
    stored = open_tensors(file)
    shapes = {tensor: found.shape for tensor, found in stored.items()}
    places = {tensor: _place(tensor) for tensor in shapes}
    if unknown := [tensor for tensor, place in places.items() if place is None]:
        raise UserError(f"{file} has {len(unknown)} tensors that are not Poly's on a T5 ({listing(unknown)})")
    known = {tensor: place for tensor, place in places.items() if place is not None}
    paths = {path for path, _ in known.values()}
    check_tree(_expected(config, paths, shapes), shapes, file)

    leaves = {}
    for tensor, (path, leaf) in known.items():
        array = stored[tensor].load()
        if leaf == "router/logits":
            array = array.reshape(config["n_tasks"], config["n_splits"], config["n_skills"])
        leaves[f"{path}/{leaf}"] = array
    return {**config, "sites": _sites(paths, file)}, unflatten(leaves)


def _config(path: pathlib.Path) -> dict[str, Any]:
    raw = read_json(path)
    if raw.get("peft_type") != "POLY":
        raise UserError(f"{path}: peft_type is {raw.get('peft_type')!r}; give a folder of PEFT's Poly (POLY)")
    sizes = {"n_tasks": "n_tasks", "n_skills": "n_skills", "n_splits": "n_splits", "rank": "r"}
    for key in sizes.values():
        if not isinstance(raw.get(key), int):
            raise UserError(f"{path}: {key} is {raw.get(key)!r}, not a number; take the adapter's own config")
    return {**{ours: raw[key] for ours, key in sizes.items()}, "alpha": 1.0, "granularity": "fine"}


def _place(tensor: str) -> tuple[str, str] | None:
    """The T5X path of the adapted map and the leaf below it; None if it is no adapted map of a T5."""
    m = re.fullmatch(rf"{re.escape(_PREFIX)}(.+?)\.({'|'.join(map(re.escape, _LEAVES))})", tensor)
    path = names.to_t5x(m[1]) if m else None
    if m is None or path is None or names.site(path) == path or names.leaf(path)[0] != "kernel":
        return None
    return path, _LEAVES[m[2]]


def _expected(
    config: dict[str, Any], paths: set[str], shapes: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor; the widths of the maps, which the model decides, are taken from the file."""
    h, k, r = config["n_splits"], config["n_skills"], config["rank"]
    expected: dict[str, tuple[int, ...]] = {}
    for path in paths:
        module = f"{_PREFIX}{names.to_hugging_face(path)}"
        a, b, logits = (f"{module}.{leaf}" for leaf in _LEAVES)
        d_in, d_out = shapes.get(a, ())[2:3], shapes.get(b, ())[3:4]
        expected |= {a: (h, k, *d_in, r), b: (h, k, r, *d_out), logits: (config["n_tasks"], h * k)}
    return expected


def _sites(paths: set[str], file: pathlib.Path) -> tuple[str, ...]:
    """The adapted sites; all layers of a stack have to be adapted alike."""
    depths = {"encoder": 0, "decoder": 0}
    layers: dict[str, set[int]] = {}
    for path in paths:
        stack, layer, _ = path.split("/", 2)
        index = int(layer.removeprefix("layers_"))
        depths[stack] = max(depths[stack], index + 1)
        layers.setdefault(names.site(path), set()).add(index)
    for site, found in layers.items():
        if lacking := set(range(depths[site.split("/")[0]])) - found:
            raise UserError(
                f"{file} does not adapt {site} in layers {sorted(lacking)}; all layers have to be adapted"
            )
    return tuple(sorted(layers))
