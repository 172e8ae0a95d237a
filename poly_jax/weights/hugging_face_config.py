"""Hugging Face's config.json of a T5 in terms of this project's model configuration."""

import pathlib
from typing import Any

from poly_jax.errors import UserError

_MODEL_TYPES = ("t5", "mt5", "umt5")
_ACTIVATIONS = {"relu": ("relu",), "gated-gelu": ("gelu", "linear")}
_EPSILON = 1e-6
_SIZES = {
    "vocab_size": "vocab_size",
    "emb_dim": "d_model",
    "num_heads": "num_heads",
    "head_dim": "d_kv",
    "mlp_dim": "d_ff",
    "num_encoder_layers": "num_layers",
    "num_decoder_layers": "num_decoder_layers",
    "relative_attention_num_buckets": "relative_attention_num_buckets",
    "relative_attention_max_distance": "relative_attention_max_distance",
}
_DEFAULTS = {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}


def t5_fields(raw: dict[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """Values of `T5Config` fields, but for `logits_via_embedding`, which the weights decide.

    Args:
      raw: content of config.json.
      path: where it came from, for messages.

    Raises:
      UserError: not a T5 that this project's model computes.
    """
    model_type = raw.get("model_type")
    if model_type not in _MODEL_TYPES:
        raise UserError(
            f"{path}: model_type is {model_type!r}; use a model of type {', '.join(_MODEL_TYPES)}"
        )
    activation = raw.get("feed_forward_proj", "relu" if model_type == "t5" else "gated-gelu")
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"{path}: feed_forward_proj is {activation!r}; use a model with {' or '.join(_ACTIVATIONS)}"
        )
    if raw.get("layer_norm_epsilon", _EPSILON) != _EPSILON:
        raise UserError(
            f"{path}: layer_norm_epsilon is {raw['layer_norm_epsilon']}; only {_EPSILON} is computed"
        )
    # Before transformers 3 there was one depth, and null may stand for it.
    known = {**_DEFAULTS, **raw, "num_decoder_layers": raw.get("num_decoder_layers") or raw.get("num_layers")}
    sizes = {field: known.get(key) for field, key in _SIZES.items()}
    for field, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise UserError(
                f"{path}: {_SIZES[field]} is {size!r}, not a number of 1 or more; take the model's own"
            )
    return {
        **sizes,
        "mlp_activations": _ACTIVATIONS[activation],
        "dropout_rate": raw.get("dropout_rate", 0.1),
        "relative_bias_in_layers": model_type == "umt5",
    }


def says_untied(raw: dict[str, Any]) -> bool:
    """Whether the config insists on an output head of its own, as those of v1.1 by transformers 4 do."""
    return raw.get("tie_word_embeddings") is False and "scale_decoder_outputs" not in raw


def scales_outputs(raw: dict[str, Any]) -> bool:
    """Whether the decoder's output is scaled by emb_dim^-0.5 before the head.

    transformers 5 writes `scale_decoder_outputs` and always says that the head is tied; before,
    `tie_word_embeddings` stood for both. mT5's outputs are never scaled. umT5's are where the config says
    `scale_decoder_outputs`: transformers 5.0 to 5.23 wrote nothing and scaled all, where T5X, which trained
    them, scales none.
    """
    if raw.get("model_type") == "mt5":
        return False
    if raw.get("model_type") == "umt5":
        return bool(raw.get("scale_decoder_outputs", False))
    return bool(raw.get("scale_decoder_outputs", raw.get("tie_word_embeddings", True)))
