"""`poly-jax import` of a backbone: a checkpoint in the project's own form, with its gin file."""

import contextlib
import dataclasses
import math
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from numpy.typing import DTypeLike

from poly_jax.configuration.gin_text import bindings
from poly_jax.errors import UserError
from poly_jax.interop import backbone_folder, single_file
from poly_jax.interop.backbone import Backbone, open_backbone
from poly_jax.interop.byte_progress import byte_progress
from poly_jax.interop.new_output import check_new, new_folder
from poly_jax.interop.t5_shapes import parameter_shapes
from poly_jax.interop.tensors import total_bytes
from poly_jax.interop.tokenizer import SENTENCEPIECE, Tokenizer, copy_tokenizer, find_tokenizer
from poly_jax.interop.tree import check_tree
from poly_jax.model.config import T5Config

_GIN = "model.gin"


def import_backbone(
    source: str,
    output: str,
    dtype: DTypeLike | None = None,
    fields: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a backbone in the project's own form, one tensor at a time, and a gin file that describes it.

    Args:
      source: see `poly_jax.interop.backbone.open_backbone`.
      output: `*.safetensors` for one file, with the gin file of the same name beside it; anything else is a
        folder, with `model.gin` in it and shards where there is much to write. A SentencePiece vocabulary of
        a Hugging Face folder goes with it.
      dtype: floats are cast to it; None keeps what is stored.
      fields: values of `T5Config` fields that count more than what the checkpoint says; for what T5X
        checkpoints do not say, and to have the shapes checked.

    Returns:
      The gin file: bind its `T5Config` and `Experiment.backbone` by including it.

    Raises:
      UserError: nothing readable at `source`, its parameters are not those of a T5, its vocabulary does not
        fit, or `output` is there already or cannot be written.
    """
    place = _new_place(output)
    backbone = open_backbone(source)
    config = dataclasses.replace(backbone.config(), **(fields or {}))
    check_tree(parameter_shapes(config), dict(backbone.tensors), source)
    tokenizer = None
    if backbone.kind != "t5x":
        tokenizer = find_tokenizer(pathlib.Path(backbone.path), config.vocab_size)
    tensors = {name: tensor.cast(dtype) for name, tensor in backbone.tensors.items()}
    metadata = dataclasses.asdict(config)
    with contextlib.nullcontext() if place.suffix else new_folder(place):
        write = single_file.write if place.suffix else backbone_folder.write
        with byte_progress("importing", total_bytes(tensors.values())) as advance:
            write(place, tensors, metadata, advance)
        return _describe(backbone, config, place, tokenizer)


def _new_place(output: str) -> pathlib.Path:
    """Where to write; nothing is there, nor the gin file that goes beside a file."""
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
    """Writes the gin file and the vocabulary beside or inside what was imported."""
    gin_file = place.with_suffix(".gin") if place.suffix else place / _GIN
    count = sum(math.prod(tensor.shape) for tensor in backbone.tensors.values())
    lines = [
        f"# {count:,} parameters, imported from {backbone.path}.",
        "# Include it, or give it as a --gin_file, before the files that describe a run.",
        "",
        *bindings(config, skip=("dtype", "scan_layers", "remat")),
        "",
        f"Experiment.backbone = {str(place.absolute())!r}",
    ]
    if not place.suffix and backbone.kind != "t5x":
        copy_tokenizer(pathlib.Path(backbone.path), place)
    if tokenizer is not None:
        model = place.with_suffix(f".{SENTENCEPIECE}") if place.suffix else place / SENTENCEPIECE
        if tokenizer.model is not None and not model.exists():
            shutil.copyfile(tokenizer.model, model)
        lines += ["", *tokenizer.gin_lines(model)]
    gin_file.write_text("\n".join(lines) + "\n")
    return gin_file
