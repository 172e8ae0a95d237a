"""Reads a T5 in Hugging Face's layout: a folder with config.json and safetensors."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.json_file import read_json
from poly_jax.weights import t5_names as names
from poly_jax.weights.hugging_face_config import says_untied, scales_outputs, t5_fields
from poly_jax.weights.parameter_names import module
from poly_jax.weights.safetensors_reader import open_tensors
from poly_jax.weights.shards import open_shards
from poly_jax.weights.t5_dimensions import DIMENSIONS, T5Dimensions
from poly_jax.weights.t5_shapes import HEAD, t5_parameter_shapes
from poly_jax.weights.tensors import Tensor
from poly_jax.weights.torch_reader import open_pickle
from poly_jax.weights.tree import check_tree

T = TypeVar("T")

_EMBEDDING = "shared.weight"
# The same matrix under other names; a file holds one or more of the three, depending on its writer.
_EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"
GENERATION = "generation_config.json"
# Old conversions of T5 v1.0 have this tensor, which no version of the model reads.
_UNREAD = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

# Safetensors come first: where a folder has both, the contents are equal, and safetensors need no PyTorch.
_FILES = {"model.safetensors": open_tensors, "pytorch_model.bin": open_pickle}


def open_hugging_face(folder: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Open the configuration and parameters of a T5, T5 v1.1, LM-adapted T5, T0, Flan-T5, mT5, umT5 or ByT5.

    The output head is the same as in transformers 5: the file's own head if it has one, else the embedding.
    It is scaled if the config says so. T5X ties and scales together. A head that does only one of the two
    becomes a separate kernel, multiplied by the scale.

    Args:
      folder: local folder with `config.json`, maybe `generation_config.json`, and `model.safetensors`, or its
        shards and their index. With PyTorch installed, `pytorch_model.bin` is also read.

    Returns:
      Values for fields of `poly_jax.model.config.T5Config`, and the parameters by T5X's names. Only the
      embedding and the head have been read, to compare them.

    Raises:
      UserError: the model belongs to another family, or a file or tensor is missing, broken, unknown or has
        another shape than the config says.
    """
    if "://" in os.fspath(folder):
        raise UserError(f"{folder} is not a local folder; copy it to one")
    folder = pathlib.Path(folder).expanduser()
    raw, generation = read_json(folder / "config.json"), folder / GENERATION
    fields = t5_fields(raw, folder / "config.json", read_json(generation) if generation.exists() else None)
    weights = _open_weights(folder)
    _check_depth(fields, weights, folder / "config.json")
    embedding = next((n for n in (_EMBEDDING, *_EMBEDDING_COPIES) if n in weights), _EMBEDDING)
    with_head = says_untied(raw) or _HEAD in weights
    dimensions = {name: fields[name] for name in DIMENSIONS if name in fields}
    shapes = t5_parameter_shapes(T5Dimensions(**{**dimensions, "logits_via_embedding": not with_head}))
    expected = {tensor_name(name): turned_shape(name, shape) for name, shape in shapes.items()}
    ignored = {_UNREAD, *_EMBEDDING_COPIES}
    stored = {name: tensor for name, tensor in weights.items() if name not in ignored}
    if embedding in weights:
        stored[_EMBEDDING] = weights[embedding]
    check_tree(expected, stored, folder)
    _check_copies(weights, embedding, folder)

    tensors = {name: _tensor(name, stored[tensor_name(name)]) for name in shapes if name != HEAD}
    head = _head(weights, embedding, scales_outputs(raw))
    if head is not None:
        tensors[HEAD] = _tensor(HEAD, head)
    return {**fields, "logits_via_embedding": head is None}, tensors


def tensor_name(name: str) -> str:
    """Return Hugging Face's name of a parameter, given its name in T5X."""
    theirs = names.to_hugging_face(module(name))
    assert theirs is not None, name
    return f"{theirs}.weight"


def turned_shape(name: str, shape: tuple[T, ...]) -> tuple[T, ...]:
    """Convert the shape of a parameter, or an index into it, between Hugging Face's layout and T5X's.

    It is the same in either direction.
    """
    return shape[::-1] if names.weight_of(module(name))[1] else shape


def turned(name: str, array: np.ndarray) -> np.ndarray:
    """Convert a parameter between Hugging Face's layout and T5X's, in either direction, in C order."""
    return np.ascontiguousarray(array.T if names.weight_of(module(name))[1] else array)


def _check_depth(fields: Mapping[str, Any], weights: Mapping[str, Tensor], config: pathlib.Path) -> None:
    """Refuse a depth that the files cannot have tensors for, before any loop over the layers."""
    for key, field in {
        "num_layers": "num_encoder_layers",
        "num_decoder_layers": "num_decoder_layers",
    }.items():
        if fields[field] > len(weights):
            raise UserError(
                f"{config}: {key} is {fields[field]}, and the files hold"
                f" {counted(len(weights), 'tensor')}; take the"
                " model's own config.json"
            )


def _tensor(name: str, stored: Tensor) -> Tensor:
    return Tensor(
        turned_shape(name, stored.shape),
        stored.dtype,
        lambda: turned(name, stored.load()),
        lambda index: turned(name, stored.part(turned_shape(name, index))),
    )


def _check_copies(weights: Mapping[str, Tensor], embedding: str, folder: pathlib.Path) -> None:
    for copy in _EMBEDDING_COPIES:
        if copy in weights and copy != embedding and not _equal(weights[embedding], weights[copy]):
            raise UserError(
                f"{folder}: {embedding} and {copy} differ; use a model with one embedding for both stacks"
            )


def _head(weights: Mapping[str, Tensor], embedding: str, scaled: bool) -> Tensor | None:
    """Return the head [vocab, embed] for unscaled decoder outputs; None if it is tied in the way of T5X."""
    if _HEAD not in weights:
        return None if scaled else weights[embedding]
    head = weights[_HEAD]
    if not scaled:
        return head
    if _equal(head, weights[embedding]):
        return None

    def load() -> np.ndarray:
        array = head.load()
        return (array.astype(np.float32) * array.shape[1] ** -0.5).astype(array.dtype)

    return Tensor(head.shape, head.dtype, load)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and np.array_equal(a.load(), b.load())


def _open_weights(folder: pathlib.Path) -> dict[str, Tensor]:
    """Open every tensor by Hugging Face's name, without reading it.

    Raises:
      UserError: there are no weights, a shard or tensor that the index names is missing, or the weights are
        pickled and PyTorch is not installed.
    """
    for name, open_file in _FILES.items():
        if (folder / name).exists():
            return open_file(folder / name)
        if (index := folder / f"{name}.index.json").exists():
            return open_shards(index, open_file)
    names = [name for file in _FILES for name in (file, f"{file}.index.json")]
    raise UserError(f"{folder} has neither {' nor '.join(names)}; copy the model's weights there")
