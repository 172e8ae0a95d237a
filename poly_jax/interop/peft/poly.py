"""Reads the skills and routers of a PEFT Poly adapter folder."""

import re

from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.interop.adapter_checkpoint import AdapterCheckpoint, adapted_sites, map_of_module
from poly_jax.interop.peft.folder import PREFIX, PeftFolder
from poly_jax.routing.learned import LearnedRouter
from poly_jax.weights import t5_names as names
from poly_jax.weights.tree import check_tree, listing, unflatten

# PEFT's names beside an adapted map, and this project's.
LEAVES = {
    "poly_lora_A": "skills/lora_a",
    "poly_lora_B": "skills/lora_b",
    "poly_router.module_logits": "router/logits",
}


def poly_adapters(folder: PeftFolder) -> AdapterCheckpoint:
    """The adapters of a folder of PEFT's Poly.

    PEFT scales the update by 1 / r, that is alpha 1, and gives every adapted map a router of its own, which
    samples while training. Per adapted map there are `skills/lora_a` [h, K, d_in/h, r], `skills/lora_b`
    [h, K, r, d_out/h] and `router/logits` [T, h, K].

    Raises:
      UserError: a tensor is missing, broken, unknown or of another shape than the config says.
    """
    t, k, h, r = (folder.size(key) for key in ("n_tasks", "n_skills", "n_splits", "r"))
    places = {tensor: _place(tensor) for tensor in folder.tensors}
    if unknown := [tensor for tensor, place in places.items() if place is None]:
        raise UserError(
            f"{folder.file} has {len(unknown)} tensors that are not Poly's on a T5 ({listing(unknown)})"
        )
    known = {tensor: place for tensor, place in places.items() if place is not None}
    paths = {path for path, _ in known.values()}
    expected: dict[str, tuple[int, ...]] = {}
    for path in paths:
        # The widths of the maps, which the model decides, are taken from the file.
        a, b, logits = (f"{PREFIX}{names.to_hugging_face(path)}.{leaf}" for leaf in LEAVES)
        d_in = folder.tensors[a].shape[2:3] if a in folder.tensors else ()
        d_out = folder.tensors[b].shape[3:4] if b in folder.tensors else ()
        expected |= {a: (h, k, *d_in, r), b: (h, k, r, *d_out), logits: (t, h * k)}
    check_tree(expected, folder.tensors, folder.file)

    leaves = {}
    for tensor, (path, leaf) in known.items():
        array = folder.tensors[tensor].load()
        leaves[f"{path}/{leaf}"] = array.reshape(t, h, k) if leaf == "router/logits" else array
    sites = adapted_sites(paths, folder.file)
    return AdapterCheckpoint(unflatten(leaves), LoRA(rank=r), LearnedRouter(), t, k, h, sites)


def _place(tensor: str) -> tuple[str, str] | None:
    """The T5X path of the adapted map and the leaf below it; None if it is no adapted map of a T5."""
    m = re.fullmatch(rf"{re.escape(PREFIX)}(.+?)\.({'|'.join(map(re.escape, LEAVES))})", tensor)
    path = map_of_module(m[1]) if m else None
    return (path, LEAVES[m[2]]) if m is not None and path is not None else None
