"""Runs the layers of a stack, one by one or under a scan, with rematerialisation."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax.linen import partitioning
from jaxtyping import Array, Float

from poly_jax.model.context import Context
from poly_jax.model.frozen_product import PRODUCT
from poly_jax.model.route import NOISE
from poly_jax.weights.parameter_names import STACKED, numbered_layer

_POLICIES: dict[str, Callable[..., Any]] = {
    # On some meshes, products with kernels are products of batches of their parts.
    "minimal": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
        jax.checkpoint_policies.save_only_these_names(PRODUCT),
    ),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[PRODUCT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def run_layers(
    layer: type[nn.Module], context: Context, depth: int, x: Float[Array, "batch length embed"], *args
) -> Float[Array, "batch length embed"]:
    """Pass x through `depth` layers of a class, each called as `layer(context)(x, *args)`.

    Called inside a compact module. Parameters are `layers_0`, `layers_1`, ...; with `config.scan_layers` they
    are one `layers` whose leaves carry the depth as their first axis.
    """
    config = context.config
    if config.remat != "none":
        # Under a scan XLA cannot undo the rematerialisation by merging common expressions.
        layer = partitioning.remat(layer, prevent_cse=not config.scan_layers, policy=_POLICIES[config.remat])
    if not config.scan_layers:
        for i in range(depth):
            x, _ = layer(context, name=numbered_layer(i))(x, *args)
        return x
    scanned = partitioning.scan_with_axes(
        layer,
        variable_axes={"params": 0, "cache": 0, "prefill": 0, NOISE: 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True, "routing": True},
        in_axes=(nn.broadcast,) * len(args),
        length=depth,
        axis_name=STACKED,
        axes_collections=("params",),
    )
    x, _ = scanned(context, name=STACKED)(x, *args)
    return x
