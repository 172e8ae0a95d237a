"""Converts Hugging Face's config.json of a T5 to this project's model configuration."""

import pathlib
from collections.abc import Mapping
from typing import Any

from poly_jax.errors import UserError
from poly_jax.weights.option_table import OptionTable, neutral, number, refused, used

_MODEL_TYPES = ("t5", "mt5", "umt5")
# All names that transformers has for the tanh approximation of GELU.
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
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
# transformers accepts each of these names as an alias of the size.
_ALIASES = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
# Ids of T5's own vocabulary, which are the defaults of T5Config.
_SPECIAL_IDS = {"eos_id": 1, "decoder_start_id": 0}

OPTIONS = OptionTable(
    "config.json of T5, mT5 and umT5",
    (
        used("model_type", "t5, mt5 or umt5; any other is refused"),
        used(" ".join(_SIZES.values()), "sizes of the model"),
        used(" ".join(_ALIASES), "other names of these sizes, which must agree with them"),
        used(
            "feed_forward_proj dense_act_fn is_gated_act",
            "together they mean ReLU without a gate, or the tanh approximation of GELU with one; the rest is"
            " refused",
        ),
        used("dropout_rate", "`T5Config.dropout_rate`"),
        used(
            "tie_word_embeddings scale_decoder_outputs",
            "whether the decoder's output is scaled before the head",
        ),
        used(
            "eos_token_id decoder_start_token_id bos_token_id",
            "`T5Config.eos_id` and `T5Config.decoder_start_id`; see below",
        ),
        refused("pad_token_id", None, 0, note="inputs are padded with 0"),
        refused("layer_norm_epsilon", None, _EPSILON, note="this project computes with no other value"),
        refused("is_encoder_decoder", None, True, note="only the encoder-decoder is computed"),
        refused("is_decoder", None, False, note="only the encoder-decoder is computed"),
        refused("tie_encoder_decoder", None, False, note="the stacks have weights of their own"),
        refused("pruned_heads", None, {}, [], note="every layer has all heads"),
        refused("quantization_config", None, {}, note="save the model unquantised"),
        neutral("initializer_factor", "it only scales fresh weights"),
        neutral(
            "classifier_dropout id2label label2id num_labels problem_type finetuning_task",
            "they belong to classification heads, whose tensors are refused",
        ),
        neutral(
            "dtype torch_dtype use_bfloat16 torchscript attn_implementation _attn_implementation"
            " _attn_implementation_autoset use_cache gradient_checkpointing chunk_size_feed_forward"
            " tf_legacy_loss output_attentions output_hidden_states output_past return_dict",
            "how transformers computes and what it returns; the weight files state their dtype",
        ),
        neutral(
            "architectures _name_or_path name_or_path _commit_hash transformers_version tokenizer_class"
            " model_max_length auto_map",
            "where the model is from",
        ),
        neutral(
            "n_positions add_cross_attention cross_attention_hidden_size scalable_attention",
            "transformers' T5 does not read them",
        ),
        neutral(
            "task_specific_params prefix", "texts and settings of transformers' pipelines; see `Decoding`"
        ),
        neutral(
            "max_length max_new_tokens min_length do_sample early_stopping num_beams num_beam_groups"
            " diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty"
            " no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences"
            " output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id"
            " remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens"
            " sep_token_id",
            "settings of transformers' generation; this project has `Decoding`",
        ),
    ),
    # False is not harmless: `scale_decoder_outputs` and `tie_word_embeddings` change the model with it.
    harmless=(None, "", [], {}),
)


def t5_fields(
    raw: Mapping[str, Any], path: pathlib.Path, generation: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the values of `T5Config` fields, without `logits_via_embedding`, which the weights decide.

    The fields include `eos_id` and `decoder_start_id` where these differ from T5's own ids.

    Args:
      raw: content of config.json.
      path: path of config.json, for messages.
      generation: content of generation_config.json beside it, if there is one.

    Raises:
      UserError: this project's model does not compute the T5, or an option is not understood.
    """
    model_type = raw.get("model_type")
    if model_type not in _MODEL_TYPES:
        raise UserError(
            f"{path}: model_type is {model_type!r}; use a model of type {', '.join(_MODEL_TYPES)}"
        )
    activations = _activations(raw, model_type, path)
    if raw.get("layer_norm_epsilon", _EPSILON) not in (_EPSILON, None):
        raise UserError(
            f"{path}: layer_norm_epsilon is {raw['layer_norm_epsilon']}; only {_EPSILON} is computed"
        )
    OPTIONS.check(raw, path)
    for key in ("tie_word_embeddings", "scale_decoder_outputs"):
        if not isinstance(raw.get(key, True), bool):
            raise UserError(f"{path}: {key} is {raw[key]!r}, not true or false; take the model's own")
    dropout_rate = number(raw, "dropout_rate", 0.1, path)
    if not 0 <= dropout_rate < 1:
        raise UserError(f"{path}: dropout_rate is {dropout_rate}; it must be at least 0 and below 1")
    return {
        **_sizes(raw, path),
        "mlp_activations": activations,
        "dropout_rate": dropout_rate,
        "relative_bias_in_layers": model_type == "umt5",
        **_special_ids(raw, path, generation or {}),
    }


def _sizes(raw: Mapping[str, Any], path: pathlib.Path) -> dict[str, int]:
    # Before transformers 3 there was one depth for both stacks; null for the decoder still means this depth.
    known = {**_DEFAULTS, **raw, "num_decoder_layers": raw.get("num_decoder_layers") or raw.get("num_layers")}
    sizes = {field: known.get(key) for field, key in _SIZES.items()}
    for field, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UserError(
                f"{path}: {_SIZES[field]} is {size!r}, not a number of 1 or more; take the model's own"
            )
    for alias, name in _ALIASES.items():
        if alias in raw and raw[alias] != known[name]:
            raise UserError(
                f"{path}: {alias} is {raw[alias]!r} and {name}, the same size, is {known[name]!r}; keep the"
                " right one"
            )
    return {field: size for field, size in sizes.items() if size is not None}


def _activations(raw: Mapping[str, Any], model_type: str, path: pathlib.Path) -> tuple[str, ...]:
    """Return the MLP's activations; separate fields for function and gate override the name of both."""
    projection = raw.get("feed_forward_proj", "relu" if model_type == "t5" else "gated-gelu")
    gate, _, function = str(projection).rpartition("-")
    function = raw.get("dense_act_fn", "gelu_new" if projection == "gated-gelu" else function)
    gated = raw.get("is_gated_act", gate == "gated")
    if gate in ("", "gated"):
        if gated is False and function == "relu":
            return ("relu",)
        if gated is True and function in _TANH_GELU:
            return ("gelu", "linear")
    said = {"feed_forward_proj": projection} | {
        key: raw[key] for key in ("dense_act_fn", "is_gated_act") if key in raw
    }
    text = " and ".join(f"{key} is {value!r}" for key, value in said.items())
    raise UserError(f"{path}: {text}; use a model with relu or gated-gelu")


def _special_ids(raw: Mapping[str, Any], path: pathlib.Path, generation: Mapping[str, Any]) -> dict[str, int]:
    """Return the end and start ids that differ from T5's own ids.

    transformers generates with generation_config.json where it exists, and otherwise with config.json. It
    trains and scores with the start id of config.json. Two different start ids cannot both be right.
    """
    beside = path.with_name("generation_config.json")
    pad = generation.get("pad_token_id")
    if pad not in (None, 0) or pad is False:
        raise UserError(f"{beside}: pad_token_id is {pad!r}, which is not supported; only 0 is")
    end = _id(raw, "eos_token_id", 1, path)
    if generation.get("eos_token_id") is not None:
        end = _id(generation, "eos_token_id", end, beside)
    # transformers starts with `bos_token_id` where no start id is given.
    start = _id(raw, "decoder_start_token_id", _id(raw, "bos_token_id", 0, path), path)
    generated = _id(
        generation, "decoder_start_token_id", _id(generation, "bos_token_id", start, beside), beside
    )
    if generated != start:
        raise UserError(
            f"{beside}: decoder_start_token_id is {generated} and {path.name} has {start}; set both to the id"
            " that the model was trained to start with"
        )
    ids = {"eos_id": end, "decoder_start_id": start}
    vocab_size = raw["vocab_size"]
    for name, value in ids.items():
        if value >= vocab_size:
            raise UserError(f"{path}: the model's {name} is {value}, and it has {vocab_size} ids")
    return {name: value for name, value in ids.items() if value != _SPECIAL_IDS[name]}


def _id(content: Mapping[str, Any], key: str, default: int, path: pathlib.Path) -> int:
    value = content.get(key)
    if value is None and (key != "eos_token_id" or key not in content):
        return default
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{path}: {key} is {value!r}; only one id is supported")
    return value


def says_untied(raw: Mapping[str, Any]) -> bool:
    """Whether the config states a separate output head, as transformers 4 does for T5 v1.1."""
    return raw.get("tie_word_embeddings") is False and "scale_decoder_outputs" not in raw


def scales_outputs(raw: Mapping[str, Any]) -> bool:
    """Whether the decoder's output is scaled by emb_dim^-0.5 before the head.

    transformers 5 writes `scale_decoder_outputs` and always says that the head is tied. Before version 5,
    `tie_word_embeddings` stood for both. The outputs of an mT5 are never scaled. The outputs of an umT5 are
    scaled where the config says `scale_decoder_outputs`. transformers 5.0 to 5.23 did not write this field
    and scaled the outputs of every umT5; T5X, which trained these models, scales none.
    """
    if raw.get("model_type") == "mt5":
        return False
    if raw.get("model_type") == "umt5":
        return bool(raw.get("scale_decoder_outputs", False))
    return bool(raw.get("scale_decoder_outputs", raw.get("tie_word_embeddings", True)))
