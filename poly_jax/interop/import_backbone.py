"""`poly-jax import` of a backbone: converts a checkpoint to this project's format, with a gin file."""

import contextlib
import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Final

from numpy.typing import DTypeLike

from poly_jax.configuration.gin_text import bindings
from poly_jax.data.tokenizer import Tokenizer, copy_tokenizer, find_tokenizer, write_beside
from poly_jax.errors import UserError
from poly_jax.files.new_output import check_new, new_folder
from poly_jax.interop.finite import finite
from poly_jax.model.config import NUMERICS, T5Config
from poly_jax.reporting.byte_progress import byte_progress
from poly_jax.weights import backbone_folder, single_file
from poly_jax.weights.backbone import Backbone, open_backbone
from poly_jax.weights.quantized import quantized_tensors
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.tensors import total_bytes
from poly_jax.weights.tree import check_tree

_GIN = "model.gin"
INT8: Final = "int8"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FROM_HUB = ("*.json", "*.safetensors", "spiece.model")


def import_backbone(
    source: str,
    output: str,
    dtype: DTypeLike | None = None,
    fields: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Write a backbone in this project's format, one tensor at a time, and a gin file that describes it.

    Args:
      source: path for `poly_jax.weights.backbone.open_backbone`.
      output: `*.safetensors` for one file, with a gin file of the same name beside it. Any other path is a
        folder, which gets `model.gin` and, for a large model, shards. The SentencePiece vocabulary of a
        Hugging Face folder is copied with it.
      dtype: dtype that floats are cast to, or "int8" for kernels as integers with scales; None keeps the
        stored dtype.
      fields: values of `T5Config` fields, which override the values that the checkpoint states. They are
        needed for fields that T5X checkpoints do not state, and for a check of the shapes.

    Returns:
      The path of the gin file, which binds `T5Config` and `Experiment.backbone` where it is included.

    Raises:
      UserError: there is nothing readable at `source`, its parameters do not belong to a T5 or are not
        finite, its vocabulary does not fit, or `output` exists already or cannot be written.
    """
    place = _new_place(output)
    backbone = open_backbone(source)
    config = T5Config.of_checkpoint({**backbone.stated_fields(), **(fields or {})}, source)
    check_tree(t5_parameter_shapes(config), dict(backbone.tensors), source)
    tokenizer = None
    if backbone.kind != "t5x":
        tokenizer = find_tokenizer(pathlib.Path(backbone.path), config.vocab_size)
    checked = finite(backbone.tensors, source)
    if dtype == INT8:
        tensors = quantized_tensors(checked)
        config = dataclasses.replace(config, quantization=INT8)
    else:
        tensors = {name: tensor.cast(dtype) for name, tensor in checked.items()}
    metadata = dataclasses.asdict(config)
    with contextlib.nullcontext() if place.suffix else new_folder(place):
        write = single_file.write if place.suffix else backbone_folder.write
        with byte_progress("importing", total_bytes(tensors.values())) as advance:
            write(place, tensors, metadata, advance)
        return _describe(backbone, config, place, tokenizer)


def _new_place(output: str) -> pathlib.Path:
    """Return the path to write to, after checking that neither it nor a gin file beside it exists."""
    place = pathlib.Path(output)
    if "://" in output:
        raise UserError(f"--output={output}: a backbone is imported to a local path; give one")
    if place.suffix not in ("", ".safetensors"):
        raise UserError(
            f"--output={output} must end in .safetensors, or be a folder: a name without a suffix"
        )
    for file in (place, place.with_suffix(".gin")) if place.suffix else (place,):
        check_new(file)
    return place


def _describe(
    backbone: Backbone, config: T5Config, place: pathlib.Path, tokenizer: Tokenizer | None
) -> pathlib.Path:
    """Write the gin file and the vocabulary beside the imported file, or inside the imported folder."""
    gin_file = place.with_suffix(".gin") if place.suffix else place / _GIN
    count = sum(math.prod(tensor.shape) for tensor in backbone.tensors.values())
    lines = [
        f"# {count:,} parameters, imported from {backbone.path}.",
        "# Include it, or give it as a --gin_file, before the files that describe a run.",
        "",
        *bindings(config, skip=NUMERICS),
        *([] if config.quantization == "none" else [f"T5Config.quantization = {config.quantization!r}"]),
        "",
        f"Experiment.backbone = {str(place.absolute())!r}",
    ]
    if not place.suffix and backbone.kind != "t5x":
        copy_tokenizer(pathlib.Path(backbone.path), place)
    if tokenizer is not None:
        lines += ["", *tokenizer.gin_lines(write_beside(tokenizer, place))]
    gin_file.write_text("\n".join(lines) + "\n")
    return gin_file


def is_hub_id(path: str) -> bool:
    """Whether a path has the form `owner/name` and does not exist locally."""
    return _HUB_ID.fullmatch(path) is not None and not pathlib.Path(path).exists()


def download(hub_id: str) -> pathlib.Path:
    """Download a model's configuration, safetensors and tokenizer to a folder in huggingface_hub's cache.

    Raises:
      UserError: huggingface_hub is not installed, or the model cannot be downloaded.
    """
    try:
        import huggingface_hub
    except ImportError as e:
        raise UserError(
            f"{hub_id} is not a local path; to get it from the Hugging Face hub install huggingface_hub, or "
            "download its folder and give that"
        ) from e
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=list(_FROM_HUB)))
    # huggingface_hub raises its own errors, and errors of two HTTP libraries and of the network.
    except Exception as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(
            f"{hub_id} is not a local path and cannot be downloaded from the Hugging Face hub ({reason});"
            " check the id and the network, or give a local folder"
        ) from e
