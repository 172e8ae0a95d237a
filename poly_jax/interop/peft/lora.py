"""Reads the adapter of a PEFT LoRA folder."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.interop.adapter_checkpoint import AdapterCheckpoint, adapted_sites, with_every_layer
from poly_jax.interop.peft.changed_base import start_of
from poly_jax.interop.peft.folder import PeftFolder, maps_of, tensor_of
from poly_jax.interop.peft.options import LORA
from poly_jax.interop.peft.targets import check_targets, pattern_value
from poly_jax.routing.fixed import SharedRouter
from poly_jax.weights import t5_names as names
from poly_jax.weights.option_table import number
from poly_jax.weights.parameter_names import skills_of
from poly_jax.weights.t5_dimensions import T5Dimensions
from poly_jax.weights.tensors import Tensor, Tensors
from poly_jax.weights.tree import check_tree, unflatten

# PEFT's names of the tensors beside an adapted map.
LEAVES = ("lora_A.weight", "lora_B.weight")


@dataclasses.dataclass(frozen=True)
class Update:
    """The update of one map, `scale * a @ b`."""

    a: Float[np.ndarray, "d_in rank"]
    b: Float[np.ndarray, "rank d_out"]
    scale: float


def lora_adapters(folder: PeftFolder, dimensions: T5Dimensions, backbone: Tensors) -> AdapterCheckpoint:
    """Read the adapter of a PEFT LoRA folder as an inventory of one skill that all tasks share.

    PEFT stores A as [r, d_in] and B as [d_out, r] and scales the update by alpha / r, or by alpha / sqrt(r)
    with rank-stabilised LoRA. Where maps have different ranks and scales, the skill has the largest rank,
    smaller factors are filled up with zeros, and B is multiplied by the ratio of the scales. A and B are 0 in
    layers that are not adapted.

    Args:
      folder: folder of the adapter.
      dimensions: dimensions of the T5 that it adapts.
      backbone: parameters of that T5 by T5X's names, one per layer; PiSSA and OLoRA are relative to them.

    Raises:
      UserError: an option is set that is not understood, or a tensor is missing, broken or unknown, or has
        another shape than the config says.
    """
    LORA.check(folder.config, folder.config_file)
    stored = folder.adapter_tensors(LEAVES, "LoRA")
    paths = maps_of(stored)
    ranks = {path: _rank(folder, path) for path in paths}
    _check_shapes(stored, ranks, folder)
    check_targets(folder, paths, dimensions)
    updates = {path: _update(path, stored, rank, folder, backbone) for path, rank in sorted(ranks.items())}
    scale = _scale(folder, folder.size("r"), number(folder.config, "lora_alpha", 8, folder.config_file))
    rank = max(update.a.shape[1] for update in updates.values())
    skill = LoRA(rank, rank * (scale or 1.0), number(folder.config, "lora_dropout", 0.0, folder.config_file))
    leaves = {}
    for path, update in updates.items():
        a, b = _at(update, rank, scale or 1.0)
        leaves[f"{skills_of(path)}/lora_a"] = np.ascontiguousarray(a)[None, None]
        leaves[f"{skills_of(path)}/lora_b"] = np.ascontiguousarray(b)[None, None]
    tree = unflatten(with_every_layer(leaves, dimensions, skill))
    return AdapterCheckpoint(tree, skill, SharedRouter(), 1, 1, 1, adapted_sites(paths))


def _rank(folder: PeftFolder, path: str) -> int:
    module, patterns = str(names.to_hugging_face(path)), folder.config.get("rank_pattern")
    rank = pattern_value(patterns, module, folder.size("r"), folder, "rank_pattern")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise UserError(
            f"{folder.config_file}: rank_pattern gives {module} the rank {rank!r}; it must be at least 1"
        )
    return rank


def _check_shapes(stored: Mapping[str, Tensor], ranks: Mapping[str, int], folder: PeftFolder) -> None:
    if not ranks:
        raise UserError(f"{folder.file} has no tensors of LoRA on a T5; take the whole adapter")
    expected: dict[str, tuple[int, ...]] = {}
    axes: dict[str, tuple[int, int]] = {}
    for path, rank in ranks.items():
        # The model decides the widths of the maps, so this check takes them from the file.
        a, b = (tensor_of(path, leaf) for leaf in LEAVES)
        d_in = stored[a].shape[1:2] if a in stored else ()
        d_out = stored[b].shape[:1] if b in stored else ()
        expected |= {a: (rank, *d_in), b: (*d_out, rank)}
        axes |= {a: (0, rank), b: (1, rank)}
    folder.check_ranks(stored, axes)
    check_tree(expected, stored, folder.file)


def _update(
    path: str, stored: Mapping[str, Tensor], rank: int, folder: PeftFolder, backbone: Tensors
) -> Update:
    """Return the update of a map relative to the kernel of the backbone."""
    module, patterns = str(names.to_hugging_face(path)), folder.config.get("alpha_pattern")
    alpha = number(folder.config, "lora_alpha", 8, folder.config_file)
    given: dict[str, Any] = {"alpha": pattern_value(patterns, module, alpha, folder, "alpha_pattern")}
    scale = _scale(folder, rank, number(given, "alpha", None, f"{folder.config_file}: alpha_pattern"))
    a, b = (stored[tensor_of(path, leaf)].load().T for leaf in LEAVES)
    start = start_of(folder)
    if start is None:
        return Update(a, b, scale)
    if not scale:
        raise UserError(f"{folder.config_file}: the alpha of {module} is 0, from which no start can be found")
    kernel = backbone.get(f"{path}/kernel")
    if kernel is None or kernel.shape != (a.shape[0], b.shape[1]):
        raise UserError(
            f"{folder.file} starts from the kernel {[a.shape[0], b.shape[1]]} of {module}, which the model"
            " does not have; give the backbone that it was trained on"
        )
    a_0, b_0 = start(kernel.load(), rank, scale)
    a, b = (factor.astype(np.float32) for factor in (a, b))
    return Update(
        np.concatenate([a, a_0.astype(np.float32)], axis=1),
        np.concatenate([b, -b_0.astype(np.float32)], axis=0),
        scale,
    )


def _scale(folder: PeftFolder, rank: int, alpha: float) -> float:
    stabilised = folder.config.get("use_rslora") or False
    if not isinstance(stabilised, bool):
        raise UserError(f"{folder.config_file}: use_rslora is {stabilised!r}, not true or false")
    return alpha / (math.sqrt(rank) if stabilised else rank)


def _at(update: Update, rank: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors of an update at a larger or equal rank and at a given scale."""
    a, b = update.a, update.b
    if update.scale != scale:
        b = b.astype(np.float32) * np.float32(update.scale / scale)
    more = rank - a.shape[1]
    return np.pad(a, ((0, 0), (0, more))), np.pad(b, ((0, more), (0, 0)))
