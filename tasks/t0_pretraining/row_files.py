"""Files of prompted rows, read one row at a time at any place: lines of JSON, and P3's TFRecord files."""

import abc
import functools
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Generic, NamedTuple, TypeVar

import numpy as np
from etils import epath
from google.protobuf.message import DecodeError
from jaxtyping import Int

from poly_jax.counted import counted
from poly_jax.data.broken_rows import BrokenRow, RowCheck
from poly_jax.data.quiet import tf
from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import parse_json
from poly_jax.files.text_file import decode

FETCH = "fetch the file again"

# A TFRecord is the length of its content, a checksum, the content, and another checksum.
_LENGTH = struct.Struct("<Q")
_CHECKSUM = 4
# One prompted row has a few kilobytes. A larger number is a damaged length.
_MOST_BYTES = 64 << 20


class Row(NamedTuple):
    """One prompted example: the text that the model reads, and the text that it should write."""

    inputs: str
    targets: str


class ScoredRow(NamedTuple):
    """One answer choice of an example, to be scored.

    Attributes:
      inputs: the text that the model reads, the same for all choices of an example.
      targets: the text of the choice.
      example: number of the example in its split.
      choice: number of the choice in its example.
      is_correct: whether the choice is right. None of an example's choices may be, or several.
      weight: weight of the example in the mean over examples.
    """

    inputs: str
    targets: str
    example: int
    choice: int
    is_correct: bool
    weight: float


AnyRow = TypeVar("AnyRow", Row, ScoredRow)


class RowFile(abc.ABC, Generic[AnyRow]):
    """The rows of one template and split.

    The file's row boundaries are found once, when its number of rows is first needed. A row itself is read
    when it is drawn, so that rows of any number are shuffled without being held in memory.

    Args:
      paths: the files, in the order of the rows; local or remote (gs://).
      limit: the largest number of rows that are used, the first ones; None for all.
      max_broken_share: largest share of these rows that may be broken and left out. With 0, a broken row is
        an error when it is drawn. Above 0, all rows are read once when their number is first needed.
    """

    kind: str

    def __init__(
        self, paths: Sequence[epath.Path], limit: int | None = None, max_broken_share: float = 0.0
    ) -> None:
        self.paths = tuple(paths)
        self._limit = limit
        self._max_broken_share = max_broken_share
        self.broken_rows: tuple[BrokenRow, ...] = ()

    def __len__(self) -> int:
        return len(self._spans)

    def row(self, place: int) -> AnyRow:
        """Read the row at a place, counted from 0.

        Raises:
          UserError: the row is damaged, or a text is missing or empty; the message names the file and the
            row's number in it, counted from 1.
        """
        number, file, start, size = (int(each) for each in self._spans[place])
        with self.paths[file].open("rb") as opened:
            return self._read(opened, number, file, start, size)

    def rows(self) -> Iterator[AnyRow]:
        """Read all rows in their order, each file once; it raises the same errors as `row`."""
        for file, path in enumerate(self.paths):
            with path.open("rb") as opened:
                for number, _, start, size in self._spans[self._spans[:, 1] == file].tolist():
                    yield self._read(opened, number, file, start, size)

    def _read(self, opened: IO[bytes], number: int, file: int, start: int, size: int) -> AnyRow:
        opened.seek(start)
        name = f"{self.paths[file]}, {self.kind} {number}"
        row = self._parse(opened.read(size), name)
        for field in ("inputs", "targets"):
            if not getattr(row, field).strip():
                raise UserError(f"{name} has empty {field}; {FETCH}, or take the row out of it")
        return row

    @functools.cached_property
    def _spans(self) -> Int[np.ndarray, "rows 4"]:
        """For each row its number in its file, the file's index, and the row's first byte and size."""
        spans: list[tuple[int, int, int, int]] = []
        for file, path in enumerate(self.paths):
            try:
                with path.open("rb") as opened:
                    for number, (start, size) in enumerate(self._boundaries(opened, path), 1):
                        if self._limit is not None and len(spans) >= self._limit:
                            break
                        spans.append((number, file, start, size))
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror or error}); {FETCH}") from None
        if not spans:
            raise UserError(f"{self.paths[0]} has no row; {FETCH}, or take the template out of the folder")
        found = np.array(spans, np.int64)
        return self._whole(found) if self._max_broken_share else found

    def _whole(self, spans: Int[np.ndarray, "rows 4"]) -> Int[np.ndarray, "whole 4"]:
        """Return the spans of the rows that are not broken."""
        check, kept = RowCheck(self._max_broken_share), []
        for place, span in enumerate(spans):
            path, number = self.paths[span[1]], int(span[0])
            with check.row(path, number, f"{path}, {self.kind} {number}"):
                with path.open("rb") as opened:
                    self._read(opened, number, *map(int, span[1:]))
                kept.append(place)
        check.finish()
        self.broken_rows = check.broken
        return spans[kept]

    @abc.abstractmethod
    def _boundaries(self, opened: IO[bytes], path: epath.Path) -> Iterator[tuple[int, int]]:
        """Yield the first byte and the size of each row's content."""

    @abc.abstractmethod
    def _parse(self, content: bytes, name: str) -> AnyRow:
        """Return the row in its content; `name` names the row in errors."""


class JsonLines(RowFile[Row]):
    """Rows as lines of JSON, each an object with the texts `inputs` and `targets`."""

    kind = "line"

    def _boundaries(self, opened: IO[bytes], path: epath.Path) -> Iterator[tuple[int, int]]:
        del path
        start = 0
        for line in opened:
            yield start, len(line)
            start += len(line)

    def _parse(self, content: bytes, name: str) -> Row:
        fields = Fields(parse_json(content, name, advice=FETCH), name, FETCH)
        return Row(fields.take("inputs", str), fields.take("targets", str))


class _Records(RowFile[AnyRow]):
    """Rows as `tf.train.Example` records, as seqio caches a task and P3 is published.

    The texts are in `inputs_pretokenized` and `targets_pretokenized`. The tokens beside them, which are
    T5's, are not read: the texts give the same tokens with T5's vocabulary, and serve any other one too.
    """

    kind = "record"

    def _boundaries(self, opened: IO[bytes], path: epath.Path) -> Iterator[tuple[int, int]]:
        place, number = 0, 1
        end = opened.seek(0, 2)
        opened.seek(0)
        while head := opened.read(_LENGTH.size):
            size = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else _MOST_BYTES
            start = place + _LENGTH.size + _CHECKSUM
            place = start + size + _CHECKSUM
            if size >= _MOST_BYTES or place > end:
                raise UserError(f"{path}, record {number} is damaged, or the file ends inside it; {FETCH}")
            yield start, size
            opened.seek(place)
            number += 1

    def _features(self, content: bytes, name: str) -> Mapping[str, tf.train.Feature]:
        try:
            return tf.train.Example.FromString(content).features.feature
        except DecodeError:
            raise UserError(f"{name} is no tf.train.Example; {FETCH}") from None

    def _texts(self, features: Mapping[str, tf.train.Feature], name: str) -> tuple[str, str]:
        texts = []
        for field in ("inputs_pretokenized", "targets_pretokenized"):
            (value,) = _values(features, field, "bytes_list", 1, name)
            texts.append(decode(value, f"{name}: {field}", FETCH))
        return texts[0], texts[1]


class CachedRecords(_Records[Row]):
    """The rows of a task that is trained on."""

    def _parse(self, content: bytes, name: str) -> Row:
        return Row(*self._texts(self._features(content, name), name))


class ScoredRecords(_Records[ScoredRow]):
    """The rows of one of P3's tasks `<template>_score_eval`, with a row for each choice of an example."""

    def _parse(self, content: bytes, name: str) -> ScoredRow:
        features = self._features(content, name)
        example, choice = _values(features, "idx", "int64_list", 2, name)
        (is_correct,) = _values(features, "is_correct", "int64_list", 1, name)
        weight = 1.0
        if "weight" in features:
            (weight,) = _values(features, "weight", "float_list", 1, name)
        return ScoredRow(*self._texts(features, name), example, choice, bool(is_correct), weight)


def _values(
    features: Mapping[str, tf.train.Feature], field: str, kind: str, count: int, name: str
) -> list[Any]:
    """Return the values of a field of a record, which must be of this kind and number."""
    values = list(getattr(features[field], kind).value) if field in features else []
    if len(values) != count:
        what = "text" if kind == "bytes_list" else counted(count, "number")
        raise UserError(f"{name} has no {what} {field!r}; {FETCH}")
    return values
