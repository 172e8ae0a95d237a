"""The one table between Hugging Face's module names of a T5 and T5X's."""

import re

from poly_jax.weights.parameter_names import numbered_layer

_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
_MLP = ("wi", "wi_0", "wi_1", "wo")

_LAYER_BIAS = {"layer.0.SelfAttention.relative_attention_bias": "relpos_bias"}

_ENCODER_LAYER = {
    **{f"layer.0.SelfAttention.{hf}": f"attention/{t5x}" for hf, t5x in _ATTENTION.items()},
    **_LAYER_BIAS,
    "layer.0.layer_norm": "pre_attention_layer_norm",
    **{f"layer.1.DenseReluDense.{name}": f"mlp/{name}" for name in _MLP},
    "layer.1.layer_norm": "pre_mlp_layer_norm",
}
_DECODER_LAYER = {
    **{f"layer.0.SelfAttention.{hf}": f"self_attention/{t5x}" for hf, t5x in _ATTENTION.items()},
    **_LAYER_BIAS,
    "layer.0.layer_norm": "pre_self_attention_layer_norm",
    **{f"layer.1.EncDecAttention.{hf}": f"encoder_decoder_attention/{t5x}" for hf, t5x in _ATTENTION.items()},
    "layer.1.layer_norm": "pre_cross_attention_layer_norm",
    **{f"layer.2.DenseReluDense.{name}": f"mlp/{name}" for name in _MLP},
    "layer.2.layer_norm": "pre_mlp_layer_norm",
}
_LAYER = {"encoder": _ENCODER_LAYER, "decoder": _DECODER_LAYER}
_TOP = {
    "shared": "token_embedder",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": "encoder/relpos_bias",
    "encoder.final_layer_norm": "encoder/encoder_norm",
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias": "decoder/relpos_bias",
    "decoder.final_layer_norm": "decoder/decoder_norm",
    "lm_head": "decoder/logits_dense",
}

_TOP_BACK = {t5x: hf for hf, t5x in _TOP.items()}
_LAYER_BACK = {stack: {t5x: hf for hf, t5x in table.items()} for stack, table in _LAYER.items()}


def to_t5x(module: str) -> str | None:
    """Return T5X's path of a module such as `encoder.block.0.layer.0.SelfAttention.q`; None if T5 has none.

    The relative position biases of the first layer belong to the whole stack.
    """
    if module in _TOP:
        return _TOP[module]
    m = re.fullmatch(r"(encoder|decoder)\.block\.(\d+)\.(.+)", module)
    if m is None or m[3] not in _LAYER[m[1]]:
        return None
    return f"{m[1]}/layers_{m[2]}/{_LAYER[m[1]][m[3]]}"


def to_hugging_face(path: str) -> str | None:
    """Return Hugging Face's name of a module such as `encoder/layers_0/attention/query`, or None."""
    if path in _TOP_BACK:
        return _TOP_BACK[path]
    m = re.fullmatch(r"(encoder|decoder)/layers_(\d+)/(.+)", path)
    if m is None or m[3] not in _LAYER_BACK[m[1]]:
        return None
    return f"{m[1]}.block.{m[2]}.{_LAYER_BACK[m[1]][m[3]]}"


def site(path: str) -> str:
    """Return the site of a module: its path without the layer (see `sites`)."""
    return re.sub(r"/layers_\d+/", "/", path)


def map_in_layer(site: str, number: int) -> str:
    """Return the module of a site in one layer, such as `encoder/layers_0/attention/query`."""
    stack, rest = site.split("/", 1)
    return f"{stack}/{numbered_layer(number)}/{rest}"


def paths(
    n_encoder_layers: int, n_decoder_layers: int, mlp_inputs: tuple[str, ...], bias_in_layers: bool = False
) -> list[str]:
    """List T5X's paths of all modules with a weight in a T5 of this depth, without its output head.

    Args:
      n_encoder_layers: depth of the encoder.
      n_decoder_layers: depth of the decoder.
      mlp_inputs: the MLP's input maps, such as `wi`.
      bias_in_layers: whether every layer has relative position biases, rather than each stack.
    """
    absent = {f"mlp/{name}" for name in _MLP if name != "wo"} - {f"mlp/{name}" for name in mlp_inputs}
    if not bias_in_layers:
        absent |= set(_LAYER_BIAS.values())
    depths = {"encoder": n_encoder_layers, "decoder": n_decoder_layers}
    top = [path for module, path in _TOP.items() if module != "lm_head"]
    return [path for path in top if not (bias_in_layers and path.endswith("relpos_bias"))] + [
        map_in_layer(f"{stack}/{path}", layer)
        for stack, depth in depths.items()
        for layer in range(depth)
        for path in _LAYER[stack].values()
        if path not in absent
    ]


def weight_of(path: str) -> tuple[str, bool]:
    """Return T5X's name of the array in a module, and whether Hugging Face's `weight` is its transpose."""
    module = path.rsplit("/", 1)[-1]
    if module.endswith("norm"):
        return "scale", False
    if module == "token_embedder":
        return "embedding", False
    if module == "relpos_bias":
        return "rel_embedding", True
    return "kernel", True
