"""Writes parameters as a Hugging Face folder that transformers 4 and 5 load."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np

from poly_jax.data.hugging_face_tokens import ADDED, CONFIG
from poly_jax.data.tokenizer import SENTENCEPIECE, Tokenizer
from poly_jax.errors import UserError
from poly_jax.files.new_output import new_folder
from poly_jax.model.config import T5Config
from poly_jax.weights.hugging_face import GENERATION, tensor_name, turned, turned_shape
from poly_jax.weights.safetensors_writer import SHARD_BYTES, Advance, write_shards
from poly_jax.weights.tensors import Tensor, Tensors

_PROJECTIONS = {("relu",): "relu", ("gelu", "linear"): "gated-gelu"}


def write_hugging_face(
    output: str,
    tensors: Tensors,
    config: T5Config,
    advance: Advance | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json and safetensors, in shards for a large model, with one tensor at a time in memory.

    Args:
      output: local folder, new or empty.
      tensors: tensors by T5X's names, one per layer.
      config: configuration of the T5.
      advance: called with the number of bytes of every tensor that was written.
      shard_bytes: the largest size of a shard.

    Raises:
      UserError: transformers does not compute the model, or the folder is in use or cannot be written.
    """
    content = hugging_face_config(config, tensors["token_embedder/embedding"].dtype)
    renamed = {tensor_name(name): _turned(name, tensor) for name, tensor in tensors.items()}
    with new_folder(output) as place:
        folder = pathlib.Path(place)
        write_json(folder / "config.json", content)
        write_json(folder / GENERATION, _special_ids(config))
        # transformers 4 only reads files that state this format.
        write_shards(folder, "model", renamed, {"format": "pt"}, advance, shard_bytes)


def hugging_face_config(config: T5Config, dtype: np.dtype) -> dict[str, Any]:
    """Return the content of config.json.

    `tie_word_embeddings` false states an untied head. With it, transformers 4 unties the head. transformers 5
    finds the head in the file, and leaves the decoder's output unscaled because of this field.
    """
    if config.mlp_activations not in _PROJECTIONS:
        raise UserError(
            f"T5Config.mlp_activations is {config.mlp_activations!r}, which transformers' T5 does not compute"
        )
    own_biases = config.relative_bias_in_layers
    if own_biases and config.logits_via_embedding:
        raise UserError("transformers does not compute an umT5 whose head is its embedding")
    return {
        "architectures": ["UMT5ForConditionalGeneration" if own_biases else "T5ForConditionalGeneration"],
        "model_type": "umt5" if own_biases else "t5",
        "vocab_size": config.vocab_size,
        "d_model": config.emb_dim,
        "num_heads": config.num_heads,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_dim,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "feed_forward_proj": _PROJECTIONS[config.mlp_activations],
        "relative_attention_num_buckets": config.relative_attention_num_buckets,
        "relative_attention_max_distance": config.relative_attention_max_distance,
        "dropout_rate": config.dropout_rate,
        "layer_norm_epsilon": 1e-6,
        "tie_word_embeddings": config.logits_via_embedding,
        "is_encoder_decoder": True,
        "use_cache": True,
        "torch_dtype": dtype.name,
        **_special_ids(config),
    }


def _special_ids(config: T5Config) -> dict[str, int]:
    return {
        "pad_token_id": 0,
        "eos_token_id": config.eos_id,
        "decoder_start_token_id": config.decoder_start_id,
    }


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON object as Hugging Face's libraries do."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer) -> None:
    """Write the files from which transformers makes the tokenizer of a T5 or ByT5."""
    kind = "ByT5Tokenizer" if tokenizer.model is None else "T5Tokenizer"
    if tokenizer.model is not None:
        shutil.copyfile(tokenizer.model, folder / SENTENCEPIECE)
    content: dict[str, Any] = {"tokenizer_class": kind, "extra_ids": tokenizer.extra_ids}
    content |= {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    if tokenizer.added_tokens:
        write_json(folder / ADDED, dict(tokenizer.added_tokens))
        # Texts are split at these tokens before any other step.
        flags = dict.fromkeys(("normalized", "special", "single_word", "lstrip", "rstrip"), False)
        content["added_tokens_decoder"] = {
            str(number): {"content": token, **flags} for token, number in tokenizer.added_tokens.items()
        }
    write_json(folder / CONFIG, content)


def _turned(name: str, tensor: Tensor) -> Tensor:
    return Tensor(turned_shape(name, tensor.shape), tensor.dtype, lambda: turned(name, tensor.load()))
