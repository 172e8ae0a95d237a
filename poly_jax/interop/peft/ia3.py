"""Reads the vectors of a PEFT (IA)^3 folder."""

import numpy as np

from poly_jax.adapters.ia3 import IA3
from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.interop.adapter_checkpoint import AdapterCheckpoint, adapted_sites, with_every_layer
from poly_jax.interop.peft.folder import PeftFolder, maps_of, tensor_of
from poly_jax.interop.peft.options import IA3 as OPTIONS
from poly_jax.interop.peft.targets import check_targets
from poly_jax.routing.fixed import SharedRouter
from poly_jax.weights.parameter_names import adapted_map, beside, leaf, skills_of
from poly_jax.weights.t5_dimensions import T5Dimensions
from poly_jax.weights.tree import listing, unflatten

# PEFT's name beside an adapted map.
LEAF = "ia3_l"


def ia3_adapters(folder: PeftFolder, dimensions: T5Dimensions) -> AdapterCheckpoint:
    """Read the vectors of a PEFT (IA)^3 folder as an inventory of one skill that all tasks share.

    A vector [d_out, 1] rescales the output of its map, as in this project. The vector [1, d_in] of a
    "feedforward" map rescales the input of its map. The input of the MLP's `wo` is the output of the MLP's
    last input map, after its activation. This activation is linear in a gated MLP. A ReLU passes factors on
    if they are not negative. Where this input map has a vector too, the two are multiplied. The vectors are 1
    in layers that are not adapted.

    Args:
      folder: folder of the adapter.
      dimensions: dimensions of the T5 that it adapts.

    Raises:
      UserError: an option is set that is not understood, or a tensor is unknown or rescales an input that
        cannot be rescaled here.
    """
    OPTIONS.check(folder.config, folder.config_file)
    stored = folder.adapter_tensors([LEAF], "(IA)^3")
    if odd := [name for name, tensor in stored.items() if len(tensor.shape) != 2 or 1 not in tensor.shape]:
        raise UserError(
            f"{folder.file} has {counted(len(odd), 'tensor')} besides (IA)^3's on a T5 ({listing(odd)})"
        )
    paths = maps_of(stored)
    if not paths:
        raise UserError(f"{folder.file} has no tensors of (IA)^3 on a T5; take the whole adapter")
    leaves: dict[str, np.ndarray] = {}
    for path in paths:
        tensor = tensor_of(path, LEAF)
        vector, rescaled = stored[tensor].load(), path
        if vector.shape[0] == 1:
            rescaled = _before(path, dimensions, tensor, folder)
            if dimensions.mlp_activations == ("relu",) and (vector < 0).any():
                raise UserError(
                    f"{folder.file}: {tensor} has negative factors, which do not pass through the ReLU of a "
                    "T5 v1.0; merge the adapter with PEFT and import the model"
                )
        target = f"{skills_of(rescaled)}/ia3"
        vector = vector.reshape(1, 1, -1)
        if target in leaves and leaves[target].shape != vector.shape:
            raise UserError(
                f"{folder.file}: {tensor} has {vector.size} factors, and {leaves[target].size} others rescale"
                " the same numbers; take the adapter's own tensors"
            )
        leaves[target] = leaves[target] * vector if target in leaves else vector
    check_targets(folder, paths, dimensions)
    sites = adapted_sites(map(adapted_map, leaves))
    skill = IA3()
    tree = unflatten(with_every_layer(leaves, dimensions, skill))
    return AdapterCheckpoint(tree, skill, SharedRouter(), 1, 1, 1, sites)


def _before(path: str, dimensions: T5Dimensions, tensor: str, folder: PeftFolder) -> str:
    """Return the map whose output is the input of the map at `path`."""
    if leaf(path) != "wo":
        raise UserError(
            f"{folder.file}: {tensor} rescales the input of {leaf(path)}; only the input of wo can be"
            " rescaled"
        )
    return beside(path, dimensions.mlp_inputs[-1])
