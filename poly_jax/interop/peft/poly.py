"""Reads the skills and routers of a PEFT Poly adapter folder."""

from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.interop.adapter_checkpoint import AdapterCheckpoint, adapted_sites, with_every_layer
from poly_jax.interop.peft.folder import PeftFolder, maps_of, tensor_of
from poly_jax.interop.peft.options import POLY
from poly_jax.interop.peft.targets import check_targets
from poly_jax.routing.learned import LearnedRouter
from poly_jax.weights.parameter_names import router_of, skills_of
from poly_jax.weights.t5_dimensions import T5Dimensions
from poly_jax.weights.tree import check_tree, unflatten

# PEFT's names of the tensors beside an adapted map.
LEAVES = ("poly_lora_A", "poly_lora_B", "poly_router.module_logits")


def poly_adapters(folder: PeftFolder, dimensions: T5Dimensions) -> AdapterCheckpoint:
    """Read the adapters of a PEFT Poly folder.

    PEFT scales the update by 1 / r, which is alpha 1. Every adapted map has its own router, which samples in
    training. Each adapted map has `skills/lora_a` [h, K, d_in/h, r], `skills/lora_b` [h, K, r, d_out/h] and
    `router/logits` [T, h, K]. All of them are 0 in layers that are not adapted.

    Args:
      folder: folder of the adapter.
      dimensions: dimensions of the T5 that it adapts.

    Raises:
      UserError: an option is set that is not understood, or a tensor is missing, broken or unknown, or has
        another shape than the config says.
    """
    POLY.check(folder.config, folder.config_file)
    t, k, h, r = (folder.size(key) for key in ("n_tasks", "n_skills", "n_splits", "r"))
    stored = folder.adapter_tensors(LEAVES, "Poly")
    paths = maps_of(stored)
    if not paths:
        raise UserError(f"{folder.file} has no tensors of Poly on a T5; take the whole adapter")
    expected: dict[str, tuple[int, ...]] = {}
    axes: dict[str, tuple[int, int]] = {}
    for path in paths:
        # The model decides the widths of the maps, so this check takes them from the file.
        a, b, logits = (tensor_of(path, leaf) for leaf in LEAVES)
        d_in = stored[a].shape[2:3] if a in stored else ()
        d_out = stored[b].shape[3:4] if b in stored else ()
        expected |= {a: (h, k, *d_in, r), b: (h, k, r, *d_out), logits: (t, h * k)}
        axes |= {a: (3, r), b: (2, r)}
    folder.check_ranks(stored, axes)
    check_tree(expected, stored, folder.file)
    check_targets(folder, paths, dimensions)

    leaves = {}
    for path in paths:
        factor_a, factor_b, table = (stored[tensor_of(path, leaf)].load() for leaf in LEAVES)
        leaves[f"{skills_of(path)}/lora_a"] = factor_a
        leaves[f"{skills_of(path)}/lora_b"] = factor_b
        leaves[f"{router_of(path, 'fine')}/logits"] = table.reshape(t, h, k)
    skill = LoRA(rank=r)
    tree = unflatten(with_every_layer(leaves, dimensions, skill))
    return AdapterCheckpoint(tree, skill, LearnedRouter(), t, k, h, adapted_sites(paths))
