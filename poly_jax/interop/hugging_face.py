"""Reads a T5 of the Hugging Face layout: a folder with config.json and safetensors."""

import os
import pathlib
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from poly_jax.errors import UserError
from poly_jax.interop import names
from poly_jax.interop.hugging_face_config import read_json, says_untied, scales_outputs, t5_fields
from poly_jax.interop.hugging_face_weights import Weights
from poly_jax.interop.tree import ParameterTree, cast, check_tree, unflatten
from poly_jax.model.config import T5Config
from poly_jax.model.sites import sites

_EMBEDDING = "shared.weight"
# The same matrix under other names; which of the three a file holds depends on what wrote it.
_EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"
# Old conversions of T5 v1.0 carry this one, which no version of the model reads.
_UNREAD = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def read_hugging_face(
    folder: str | os.PathLike, dtype: DTypeLike | None = None
) -> tuple[dict[str, Any], ParameterTree]:
    """The configuration and parameters of a T5 v1.0, v1.1, LM-adapted, T0, Flan-T5, mT5 or ByT5 folder.

    The output head is the one that transformers 5 uses: the file's own if it has one, else the embedding;
    scaled if the config says so. T5X ties and scales together, so a head that does only one of the two
    becomes a kernel of its own with the scale folded in.

    Args:
      folder: local folder with `config.json` and `model.safetensors`, or its shards and their index.
      dtype: floats are cast to it; None keeps what is stored.

    Returns:
      Values for fields of `poly_jax.model.config.T5Config`, and the parameters as nested dictionaries of
      numpy arrays under T5X's names.

    Raises:
      UserError: another model family, only pickled weights, or a file or tensor that is missing, broken,
        unknown or of another shape than the config says.
    """
    if "://" in os.fspath(folder):
        raise UserError(f"{folder} is not a local folder; copy it to one")
    folder = pathlib.Path(folder).expanduser()
    raw = read_json(folder / "config.json")
    fields = t5_fields(raw, folder / "config.json")
    weights = Weights(folder)
    embedding = next((n for n in (_EMBEDDING, *_EMBEDDING_COPIES) if n in weights.shapes), _EMBEDDING)
    expected = _shapes(T5Config(**fields), with_head=says_untied(raw) or _HEAD in weights.shapes)
    ignored = {_UNREAD, *_EMBEDDING_COPIES}
    stored = {name: shape for name, shape in weights.shapes.items() if name not in ignored}
    if embedding in weights.shapes:
        stored[_EMBEDDING] = weights.shapes[embedding]
    check_tree(expected, stored, folder)
    _check_copies(weights, embedding, folder)

    leaves = {}
    for tensor in sorted(expected.keys() - {_HEAD}):
        leaves.update(_leaf(tensor, weights.read(embedding if tensor == _EMBEDDING else tensor), dtype))
    head = _head(weights, embedding, scales_outputs(raw))
    if head is not None:
        leaves.update(_leaf(_HEAD, head, dtype))
    return {**fields, "logits_via_embedding": head is None}, unflatten(leaves)


def _path(tensor: str) -> str:
    path = names.to_t5x(tensor.removesuffix(".weight"))
    assert path is not None, tensor
    return path


def _shapes(config: T5Config, with_head: bool) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a model, by Hugging Face's names."""
    modules = names.modules(config.num_encoder_layers, config.num_decoder_layers, config.mlp_inputs)
    widths = sites(config)
    vocabulary = (config.vocab_size, config.emb_dim)
    shapes: dict[str, tuple[int, ...]] = {_HEAD: vocabulary} if with_head else {}
    for tensor in (f"{module}.weight" for module in modules):
        match names.leaf(_path(tensor)):
            case "embedding", _:
                shapes[tensor] = vocabulary
            case "scale", _:
                shapes[tensor] = (config.emb_dim,)
            case "rel_embedding", _:
                shapes[tensor] = (config.relative_attention_num_buckets, config.num_heads)
            case _:
                d_in, d_out = widths[names.site(_path(tensor))]
                shapes[tensor] = (d_out, d_in)
    return shapes


def _leaf(tensor: str, array: np.ndarray, dtype: DTypeLike | None) -> dict[str, np.ndarray]:
    leaf, transposed = names.leaf(_path(tensor))
    array = cast(array, dtype)
    return {f"{_path(tensor)}/{leaf}": np.ascontiguousarray(array.T if transposed else array)}


def _check_copies(weights: Weights, embedding: str, folder: pathlib.Path) -> None:
    for copy in _EMBEDDING_COPIES:
        if copy in weights.shapes and not np.array_equal(weights.read(embedding), weights.read(copy)):
            raise UserError(
                f"{folder}: {embedding} and {copy} differ; use a model with one embedding for both stacks"
            )


def _head(weights: Weights, embedding: str, scaled: bool) -> np.ndarray | None:
    """The head [vocab, embed] to apply to unscaled decoder outputs; None if it is tied as T5X ties it."""
    if _HEAD not in weights.shapes:
        return None if scaled else weights.read(embedding)
    head = weights.read(_HEAD)
    if not scaled:
        return head
    if np.array_equal(head, weights.read(embedding)):
        return None
    return (head.astype(np.float32) * head.shape[1] ** -0.5).astype(head.dtype)
