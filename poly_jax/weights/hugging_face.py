"""Reads a T5 of the Hugging Face layout: a folder with config.json and safetensors."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from poly_jax.errors import UserError
from poly_jax.files.json_file import read_json
from poly_jax.weights import t5_names as names
from poly_jax.weights.hugging_face_config import says_untied, scales_outputs, t5_fields
from poly_jax.weights.safetensors_reader import open_tensors
from poly_jax.weights.shards import open_shards
from poly_jax.weights.t5_dimensions import DIMENSIONS, T5Dimensions
from poly_jax.weights.t5_shapes import HEAD, t5_parameter_shapes
from poly_jax.weights.tensors import Tensor
from poly_jax.weights.torch_reader import open_pickle
from poly_jax.weights.tree import check_tree

_EMBEDDING = "shared.weight"
# The same matrix under other names; which of the three a file holds depends on what wrote it.
_EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"
GENERATION = "generation_config.json"
# Old conversions of T5 v1.0 carry this one, which no version of the model reads.
_UNREAD = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

# Safetensors first: where both are there they hold the same, and these need no PyTorch.
_FILES = {"model.safetensors": open_tensors, "pytorch_model.bin": open_pickle}


def open_hugging_face(folder: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and parameters of a T5, T5 v1.1, LM-adapted, T0, Flan-T5, mT5, umT5 or ByT5.

    The output head is the one that transformers 5 uses: the file's own if it has one, else the embedding;
    scaled if the config says so. T5X ties and scales together, so a head that does only one of the two
    becomes a kernel of its own with the scale folded in.

    Args:
      folder: local folder with `config.json`, maybe `generation_config.json`, and `model.safetensors`, or its
        shards and their index; `pytorch_model.bin` likewise, where PyTorch is installed.

    Returns:
      Values for fields of `poly_jax.model.config.T5Config`, and the parameters by T5X's names; of these only
      the embedding and the head have been read, to compare them.

    Raises:
      UserError: another model family, or a file or tensor that is missing, broken, unknown or of another
        shape than the config says.
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
    """Hugging Face's name of a parameter of T5X's name."""
    module = names.to_hugging_face(name.rsplit("/", 1)[0])
    assert module is not None, name
    return f"{module}.weight"


def turned_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a parameter's other form: Hugging Face's from T5X's or back."""
    return shape[::-1] if names.leaf(name.rsplit("/", 1)[0])[1] else shape


def turned(name: str, array: np.ndarray) -> np.ndarray:
    """A parameter in its other form, Hugging Face's from T5X's or back, in C order."""
    return np.ascontiguousarray(array.T if names.leaf(name.rsplit("/", 1)[0])[1] else array)


def _check_depth(fields: Mapping[str, Any], weights: Mapping[str, Tensor], config: pathlib.Path) -> None:
    """Refuse a depth that the files cannot fill, before anything is made for every layer."""
    for key, field in {
        "num_layers": "num_encoder_layers",
        "num_decoder_layers": "num_decoder_layers",
    }.items():
        if fields[field] > len(weights):
            raise UserError(
                f"{config}: {key} is {fields[field]}, and the files hold {len(weights)} tensors; take the"
                " model's own config.json"
            )


def _tensor(name: str, stored: Tensor) -> Tensor:
    return Tensor(turned_shape(name, stored.shape), stored.dtype, lambda: turned(name, stored.load()))


def _check_copies(weights: Mapping[str, Tensor], embedding: str, folder: pathlib.Path) -> None:
    for copy in _EMBEDDING_COPIES:
        if copy in weights and copy != embedding and not _equal(weights[embedding], weights[copy]):
            raise UserError(
                f"{folder}: {embedding} and {copy} differ; use a model with one embedding for both stacks"
            )


def _head(weights: Mapping[str, Tensor], embedding: str, scaled: bool) -> Tensor | None:
    """The head [vocab, embed] to apply to unscaled decoder outputs; None if it is tied as T5X ties it."""
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
    """Every tensor by Hugging Face's name; nothing is read yet.

    Raises:
      UserError: no weights, or a shard or tensor that the index names is not there, or pickled ones without
        PyTorch to read them.
    """
    for name, open_file in _FILES.items():
        if (folder / name).exists():
            return open_file(folder / name)
        if (index := folder / f"{name}.index.json").exists():
            return open_shards(index, open_file)
    names = [name for file in _FILES for name in (file, f"{file}.index.json")]
    raise UserError(f"{folder} has neither {' nor '.join(names)}; copy the model's weights there")
