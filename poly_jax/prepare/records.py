"""Rows of a task as the `tf.train.Example` records of seqio's offline cache, and their description."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError

Columns = Mapping[str, "tf.Tensor | tf.RaggedTensor"]
"""The features of some rows, by name; the first axis counts the rows."""

# The dtypes that seqio's reader of a cache gives back as they were.
_DTYPES = (tf.string, tf.bool, tf.int32, tf.int64, tf.float32)


def described(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Describe the features of a dataset as `info.<split>.json` does.

    A feature whose shape is the same in all rows keeps it, so that the cached rows have the static shapes of
    the uncached ones. Of any other feature the first axis has no size, which is how seqio describes a
    sequence.

    Args:
      spec: `element_spec` of the dataset.

    Raises:
      UserError: seqio's reader could not give back a feature as it is.
    """
    return {name: _described(name, feature) for name, feature in sorted(spec.items())}


def _described(name: str, feature: Any) -> dict[str, Any]:
    ragged = isinstance(feature, tf.RaggedTensorSpec)
    if not ragged and not isinstance(feature, tf.TensorSpec):
        raise UserError(
            f"feature {name!r} is a {type(feature).__name__}, which seqio's cache cannot hold; make it a "
            "tensor before the CacheDatasetPlaceholder"
        )
    if feature.dtype not in _DTYPES:
        raise UserError(
            f"feature {name!r} has dtype {feature.dtype.name}, which seqio's cache cannot hold; cast it to "
            f"{', '.join(dtype.name for dtype in _DTYPES)} before the CacheDatasetPlaceholder"
        )
    shape = feature.shape.as_list() if feature.shape.rank is not None else None
    if shape is None or (not ragged and None in shape[1:]):
        raise UserError(
            f"feature {name!r} has shape {feature.shape}; state all its sizes but the first with "
            "tf.ensure_shape before the CacheDatasetPlaceholder, or make it a tf.RaggedTensor"
        )
    if shape and (None in shape or 0 in shape):
        shape = [None, *shape[1:]]
    return {"shape": shape, "dtype": feature.dtype.name}


@dataclasses.dataclass(frozen=True)
class _Column:
    """One feature of some rows, flattened.

    Attributes:
      values: the values of all rows, one after the other.
      bounds: for each row the place of its first value, and at the end the number of values.
      lengths: for a ragged feature, the lengths of its inner rows on each axis, with their own bounds.
    """

    values: np.ndarray
    bounds: Int[np.ndarray, "rows_and_end"]
    lengths: tuple[tuple[np.ndarray, np.ndarray], ...] = ()


def _column(tensor: Any) -> _Column:
    if not isinstance(tensor, tf.RaggedTensor):
        array = tensor.numpy()
        size = int(np.prod(array.shape[1:]))
        return _Column(array.reshape(-1), np.arange(array.shape[0] + 1) * size)
    splits = [each.numpy() for each in tensor.nested_row_splits]
    bounds, lengths = splits[0], []
    for inner in splits[1:]:
        lengths.append((np.diff(inner), bounds))
        bounds = inner[bounds]
    flat = tensor.flat_values.numpy()
    return _Column(flat.reshape(-1), bounds * int(np.prod(flat.shape[1:])), tuple(lengths))


def serialized(columns: Columns) -> list[bytes]:
    """Serialize rows as `seqio.dict_to_tfexample` does; equal rows always have equal bytes."""
    fields: list[tuple[str, str, np.ndarray, np.ndarray]] = []
    for name, tensor in sorted(columns.items()):
        column = _column(tensor)
        kind = "bytes_list" if tensor.dtype is tf.string else "int64_list"
        kind = "float_list" if tensor.dtype.is_floating else kind
        values = column.values.astype(np.int64) if tensor.dtype is tf.bool else column.values
        fields.append((name, kind, values, column.bounds))
        for axis, (lengths, bounds) in enumerate(column.lengths):
            key = seqio.utils.tfexample_ragged_length_key(name, axis)
            fields.append((key, "int64_list", lengths, bounds))
    records = []
    for row in range(len(fields[0][3]) - 1 if fields else 0):
        example = tf.train.Example()
        features = example.features.feature
        for name, kind, values, bounds in fields:
            getattr(features[name], kind).value.extend(values[bounds[row] : bounds[row + 1]].tolist())
        records.append(example.SerializeToString(deterministic=True))
    return records


def token_counts(
    columns: Columns, features: Mapping[str, seqio.Feature]
) -> dict[str, Int[np.ndarray, "rows"]]:
    """Count the tokens of each row as seqio's statistics do, without ends of sequence and padding.

    Returns:
      For each output feature that the rows have as whole numbers, the number of tokens of each row.
    """
    counts = {}
    for name, feature in features.items():
        if name not in columns or columns[name].dtype not in (tf.int32, tf.int64):
            continue
        column = _column(columns[name])
        special = [feature.vocabulary.eos_id, feature.vocabulary.pad_id]
        valid = ~np.isin(column.values, [each for each in special if each is not None])
        counts[name] = np.diff(np.concatenate([[0], np.cumsum(valid)])[column.bounds])
    return counts
