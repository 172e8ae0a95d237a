"""Reads the examples of a data set before they are prompted: from TFDS, or from a JSONL file."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from poly_jax.data.quiet import held_stderr
from poly_jax.errors import UserError
from poly_jax.files.json_file import parse_json
from poly_jax.tasks.t0_pretraining.row_files import FETCH

Example = dict[str, Any]


def tfds_examples(name: str, split: str = "train", data_dir: str | None = None) -> Iterator[Example]:
    """Yield the examples of a prepared TFDS data set in the order of its files, as plain Python values.

    Labels are whole numbers, texts are texts, and sequences are lists, as promptsource's templates expect.

    Args:
      name: TFDS's name, such as "glue/mrpc".
      split: the split to read.
      data_dir: TFDS's folder; None for its default.

    Raises:
      UserError: TFDS does not have the data set in this folder, it has no such split, or a text is not UTF-8.
    """
    with held_stderr():
        import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        dataset = builder.as_dataset(split=split, shuffle_files=False)
    except (tfds.core.registered.DatasetNotFoundError, AssertionError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"TFDS cannot read split {split!r} of {name!r} ({reason}); prepare it with `tfds build {name}`"
        ) from None
    for number, example in enumerate(tfds.as_numpy(dataset), 1):
        try:
            yield {field: _plain(value) for field, value in example.items()}
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name}, split {split!r}, example {number} is not UTF-8 text ({error.reason}); {FETCH}"
            ) from None


def json_examples(path: epath.PathLike) -> Iterator[Example]:
    """Yield the examples of a JSONL file, each an object with the fields that promptsource's templates use.

    Raises:
      UserError: the file cannot be read, or a line is not such an object; the message has its number.
    """
    try:
        with epath.Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                yield parse_json(line, f"{path}, line {number}", allow_nan=True, advice=FETCH)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {FETCH}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: _plain(element) for name, element in value.items()}
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "to_list"):
        listed = value.to_list() if hasattr(value, "to_list") else value.tolist()
        return _plain(listed) if isinstance(listed, list | bytes) else listed
    return [_plain(element) for element in value] if isinstance(value, list) else value
