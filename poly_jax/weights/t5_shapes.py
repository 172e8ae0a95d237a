"""The names and shapes of a T5's parameters, and the configuration of a T5 from names and shapes alone."""

import re
from collections.abc import Mapping
from typing import Any

from poly_jax.errors import UserError
from poly_jax.weights import t5_names as names
from poly_jax.weights.parameter_names import module
from poly_jax.weights.t5_dimensions import T5Dimensions, sites
from poly_jax.weights.tensors import Tensor

Shape = tuple[int, ...]

HEAD = "decoder/logits_dense/kernel"
# An MLP with one input map is T5 v1.0; with two it is v1.1, whose second input has no activation.
_ACTIVATIONS = {("wi",): ("relu",), ("wi_0", "wi_1"): ("gelu", "linear")}
_BIAS = "encoder/relpos_bias/rel_embedding"
_LAYER_BIAS = "encoder/layers_0/relpos_bias/rel_embedding"


def t5_parameter_shapes(dimensions: T5Dimensions) -> dict[str, Shape]:
    """Return the shape of every parameter of every layer by T5X's '/'-joined name."""
    paths = names.paths(
        dimensions.num_encoder_layers,
        dimensions.num_decoder_layers,
        dimensions.mlp_inputs,
        dimensions.relative_bias_in_layers,
    )
    if not dimensions.logits_via_embedding:
        paths.append(module(HEAD))
    widths = sites(dimensions)
    shapes: dict[str, Shape] = {}
    for path in paths:
        leaf, _ = names.weight_of(path)
        match leaf:
            case "embedding":
                shape: Shape = (dimensions.vocab_size, dimensions.emb_dim)
            case "scale":
                shape = (dimensions.emb_dim,)
            case "rel_embedding":
                shape = (dimensions.num_heads, dimensions.relative_attention_num_buckets)
            case _ if f"{path}/{leaf}" == HEAD:
                shape = (dimensions.emb_dim, dimensions.vocab_size)
            case _:
                shape = widths[names.site(path)]
        shapes[f"{path}/{leaf}"] = shape
    return shapes


def t5_fields(tensors: Mapping[str, Tensor], source: object) -> dict[str, Any]:
    """Return the values of `T5Config` fields that follow from the names and shapes of a T5's parameters.

    T5X keeps the remaining values, such as the largest distance of relative positions, only in its gin files.

    Args:
      tensors: tensors by T5X's names, one per layer.
      source: name of their checkpoint, for messages.

    Raises:
      UserError: the parameters do not belong to a T5 that this project's model computes.
    """
    if not any(name.startswith("encoder/") for name in tensors):
        raise UserError(f"{source} has no encoder; decoder-only models are not supported, give a T5")

    def shape(name: str) -> Shape:
        found = tensors.get(name)
        if found is None or len(found.shape) != 2:
            what = "lacks" if found is None else f"has {list(found.shape)} for"
            raise UserError(f"{source} {what} {name}, which states the size of a T5; give a T5's checkpoint")
        return found.shape

    inputs = tuple(
        name for name in ("wi", "wi_0", "wi_1") if f"encoder/layers_0/mlp/{name}/kernel" in tensors
    )
    if inputs not in _ACTIVATIONS:
        raise UserError(
            f"{source} has an MLP with {' and '.join(inputs) or 'no wi'} in encoder/layers_0; only wi, or "
            "wi_0 and wi_1, are supported"
        )
    vocab_size, emb_dim = shape("token_embedder/embedding")
    num_heads, buckets = shape(_LAYER_BIAS if _LAYER_BIAS in tensors else _BIAS)
    joined = shape("encoder/layers_0/attention/query/kernel")[1]
    if joined % num_heads:
        raise UserError(f"{source}: queries of width {joined} are not {num_heads} heads of one width")
    return {
        "vocab_size": vocab_size,
        "emb_dim": emb_dim,
        "num_heads": num_heads,
        "head_dim": joined // num_heads,
        "mlp_dim": shape(f"encoder/layers_0/mlp/{inputs[0]}/kernel")[1],
        "num_encoder_layers": _depth(tensors, "encoder"),
        "num_decoder_layers": _depth(tensors, "decoder"),
        "mlp_activations": _ACTIVATIONS[inputs],
        "logits_via_embedding": HEAD not in tensors,
        "relative_attention_num_buckets": buckets,
        "relative_bias_in_layers": _LAYER_BIAS in tensors,
    }


def _depth(tensors: Mapping[str, Tensor], stack: str) -> int:
    found = (re.match(rf"{stack}/layers_(\d+)/", name) for name in tensors)
    return max((int(m[1]) + 1 for m in found if m), default=0)
