"""Reads the one adapter of a PEFT LoRA folder."""

import math
import re

import numpy as np

from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.interop.adapter_checkpoint import AdapterCheckpoint, adapted_sites, map_of_module
from poly_jax.interop.peft.folder import PREFIX, PeftFolder
from poly_jax.routing.fixed import SharedRouter
from poly_jax.weights import t5_names as names
from poly_jax.weights.tree import check_tree, listing, unflatten

# PEFT's names beside an adapted map, and this project's.
LEAVES = {"lora_A.weight": "skills/lora_a", "lora_B.weight": "skills/lora_b"}


def lora_adapters(folder: PeftFolder) -> AdapterCheckpoint:
    """The adapter of a folder of PEFT's LoRA as an inventory of one skill that all tasks share.

    PEFT keeps A as [r, d_in] and B as [d_out, r] and scales the update by alpha / r, or with rank-stabilised
    LoRA by alpha / sqrt(r), which becomes an alpha of alpha * sqrt(r).

    Raises:
      UserError: an option is set that this project's LoRA lacks, or a tensor is missing, broken, unknown or
        of another shape than the config says.
    """
    folder.refuse(
        bias="none",
        use_dora=False,
        lora_bias=False,
        rank_pattern=None,
        alpha_pattern=None,
        modules_to_save=None,
        layer_replication=None,
        target_parameters=None,
    )
    r = folder.size("r")
    alpha = folder.config.get("lora_alpha", 8)
    if not isinstance(alpha, int | float):
        raise UserError(f"{folder.config_file}: lora_alpha is {alpha!r}, not a number")
    if folder.config.get("use_rslora"):
        alpha *= math.sqrt(r)
    places: dict[str, tuple[str, str]] = {}
    for tensor in folder.tensors:
        m = re.fullmatch(rf"{re.escape(PREFIX)}(.+?)\.({'|'.join(map(re.escape, LEAVES))})", tensor)
        path = map_of_module(m[1]) if m else None
        if m is not None and path is not None:
            places[tensor] = (path, LEAVES[m[2]])
    if unknown := folder.tensors.keys() - places.keys():
        raise UserError(
            f"{folder.file} has {len(unknown)} tensors that are not LoRA's on a T5 ({listing(unknown)})"
        )
    paths = {path for path, _ in places.values()}
    expected: dict[str, tuple[int, ...]] = {}
    for path in paths:
        # The widths of the maps, which the model decides, are taken from the file.
        a, b = (f"{PREFIX}{names.to_hugging_face(path)}.{leaf}" for leaf in LEAVES)
        d_in = folder.tensors[a].shape[1:2] if a in folder.tensors else ()
        d_out = folder.tensors[b].shape[:1] if b in folder.tensors else ()
        expected |= {a: (r, *d_in), b: (*d_out, r)}
    check_tree(expected, folder.tensors, folder.file)
    leaves = {
        f"{path}/{leaf}": np.ascontiguousarray(folder.tensors[tensor].load().T)[None, None]
        for tensor, (path, leaf) in places.items()
    }
    sites = adapted_sites(paths, folder.file)
    return AdapterCheckpoint(unflatten(leaves), LoRA(r, float(alpha)), SharedRouter(), 1, 1, 1, sites)
