"""Files of rows with named fields: lines of JSON, CSV, TSV, Arrow and Parquet."""

import abc
import contextlib
import csv
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from typing import IO, Any, ClassVar

import pyarrow
import pyarrow.parquet
from etils import epath

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.json_file import parse_json
from poly_jax.files.text_file import decode, refuse_utf16

Fields = Mapping[str, Any]
"""The fields of a row by name: texts, numbers, None, and lists and dictionaries of these."""

REPAIR = "repair or remove it"

# A field of CSV may hold a whole article. Python's own limit is 128 KiB.
_LONGEST_FIELD = 1 << 30


class Label(int):
    """A label of a Hugging Face data set: a number that is written as the name of its class."""

    name: str

    def __new__(cls, number: int, name: str) -> "Label":
        """Make the label of a number."""
        label = super().__new__(cls, number)
        label.name = name
        return label

    def __str__(self) -> str:
        return self.name


class RowFile(abc.ABC):
    """A file of rows, which is read from its beginning to its end.

    `rows` gives every row in a raw form, with its number from 1, and `fields` makes its fields. They are
    separate because `fields` raises a UserError for a broken row, after which the next row can be read.

    Args:
      path: the file; local or remote (gs://).
    """

    kind: ClassVar[str]
    """The unit that `rows` numbers: "line" or "row"."""

    def __init__(self, path: epath.Path) -> None:
        self.path = path

    @abc.abstractmethod
    def rows(self) -> Iterator[tuple[int, Any]]:
        """Yield the number and the raw form of every row.

        Raises:
          UserError: the file as a whole cannot be read.
        """

    @abc.abstractmethod
    def fields(self, raw: Any, place: str) -> Fields:
        """Return the fields of a raw row.

        Raises:
          UserError: the row is broken; the message begins with `place`.
        """

    def columns(self) -> list[str]:
        """Return the names of the fields of the first row that is not broken; none where all are.

        Raises:
          UserError: the file as a whole cannot be read.
        """
        return list(next(self.readable(), ()))

    def readable(self) -> Iterator[Fields]:
        """Yield the fields of every row that is not broken.

        Raises:
          UserError: the file as a whole cannot be read.
        """
        for _, raw in self.rows():
            try:
                fields = self.fields(raw, str(self.path))
            except UserError:
                continue
            yield fields

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Make one line of an error about the file as a whole."""
        try:
            yield
        except FileNotFoundError:
            raise UserError(f"{self.path} is missing") from None
        # Arrow asks for as much memory as a damaged length says.
        except (pyarrow.ArrowException, MemoryError) as error:
            raise UserError(f"{self.path} is damaged ({_one_line(error)}); copy it again") from None
        except OSError as error:
            reason = error.strerror or _one_line(error)
            raise UserError(f"{self.path} cannot be read ({reason}); copy it again") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _numbered(file: IO[bytes], path: epath.Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of every line; a UserError refuses a file in UTF-16 as a whole."""
    for number, line in enumerate(file, 1):
        if number == 1:
            refuse_utf16(line, path)
        yield number, line


class JsonLines(RowFile):
    """A JSON object in each line. Blank lines are passed over."""

    kind = "line"

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the bytes of every line."""
        with self._errors(), self.path.open("rb") as file:
            for number, line in _numbered(file, self.path):
                if not line.isspace():
                    yield number, line

    def fields(self, raw: bytes, place: str) -> Fields:
        """Parse a line."""
        return parse_json(raw, place, advice=REPAIR)


class Csv(RowFile):
    """Comma-separated values as in RFC 4180: a header, and rows that may span lines inside quotes.

    Blank lines are passed over. A row has the number of its first line.
    """

    kind = "line"
    _dialect: ClassVar[dict[str, Any]] = {"delimiter": ",", "strict": True}

    def __init__(self, path: epath.Path) -> None:
        super().__init__(path)
        self._columns: list[str] = []

    def rows(self) -> Iterator[tuple[int, list[str] | UserError]]:
        """Yield the number of every row's first line, and its cells or what is wrong with them."""
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
        with self._errors(), self.path.open("rb") as file:
            lines = _Lines(file, self.path)
            reader = csv.reader(lines, **self._dialect)
            self._columns = self._header(reader, lines)
            while True:
                first = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if lines.at_end:
                        # The rest of the file may be inside the quotes.
                        raise UserError(
                            f"{self.path}, line {first} opens a quote that the file does not close; repair it"
                        ) from None
                    yield first, UserError(f"{self.path}, line {first} {_csv_fault(error)}")
                    continue
                if cells:
                    yield first, lines.taken_fault() or cells

    def fields(self, raw: list[str] | UserError, place: str) -> Fields:
        """Name the cells of a row by the header."""
        if isinstance(raw, UserError):
            raise raw
        if len(raw) != len(self._columns):
            raise UserError(
                f"{place} has {counted(len(raw), 'column')}, and the header of the file has"
                f" {len(self._columns)}; "
                f"{REPAIR}"
            )
        return dict(zip(self._columns, raw, strict=True))

    def _header(self, reader: Iterator[list[str]], lines: "_Lines") -> list[str]:
        try:
            columns = next(filter(None, reader), [])
        except csv.Error as error:
            raise UserError(f"{self.path}, line 1, the header, {_csv_fault(error)}") from None
        if fault := lines.taken_fault():
            raise fault
        if not columns:
            raise UserError(f"{self.path} is empty; its first line must name the columns")
        for column in columns:
            if columns.count(column) > 1:
                raise UserError(f"{self.path}: the header has the column {column!r} twice; rename one")
        return columns


# Pieces of the messages of Python's csv module, and what we say instead.
_CSV_FAULTS = {
    "new-line character": r"has a carriage return (\r) without a newline after it; end lines with \n or \r\n",
    "expected after": 'has text behind the quote (") that ends a field; write "" for a quote inside a field',
    "field limit": f"has a field of more than {_LONGEST_FIELD:,} characters; {REPAIR}",
}


def _csv_fault(error: csv.Error) -> str:
    said = str(error)
    return next((ours for piece, ours in _CSV_FAULTS.items() if piece in said), f"is not CSV; {REPAIR}")


class Tsv(Csv):
    """Tab-separated values: a header and a row in each line. Quotes have no special meaning."""

    _dialect: ClassVar[dict[str, Any]] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}


class _Lines:
    """The lines of a file as texts, with the first fault in those since the last call of `taken_fault`."""

    def __init__(self, file: IO[bytes], path: epath.Path) -> None:
        self._numbered = _numbered(file, path)
        self._path = path
        self._fault: UserError | None = None
        self.at_end = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            number, line = next(self._numbered)
        except StopIteration:
            self.at_end = True
            raise
        try:
            text = decode(line, f"{self._path}, line {number}", REPAIR)
        except UserError as error:
            self._fault = self._fault or error
            text = line.decode(errors="replace")
        return text

    def taken_fault(self) -> UserError | None:
        fault, self._fault = self._fault, None
        return fault


class _Batches(RowFile):
    """A file of Arrow record batches, whose rows are numbered from 1."""

    kind = "row"

    @abc.abstractmethod
    def _batches(self, content: pyarrow.NativeFile) -> Iterator[pyarrow.RecordBatch]:
        """Yield the record batches in the content of the file."""

    def _content(self) -> pyarrow.NativeFile:
        place = os.fspath(self.path)
        # A mapped file is read as it is used, and never beyond its end, whatever a damaged length says.
        return pyarrow.BufferReader(self.path.read_bytes()) if "://" in place else pyarrow.memory_map(place)

    def rows(self) -> Iterator[tuple[int, tuple[pyarrow.RecordBatch, Mapping[str, list[str]], int]]]:
        """Yield the number of every row, its batch with the names of its labels, and its place there."""
        numbers = itertools.count(1)
        with self._errors():
            for batch in self._batches(self._content()):
                _check_bounds(batch)
                labels = _label_names(batch.schema)
                for place in range(batch.num_rows):
                    yield next(numbers), (batch, labels, place)

    def fields(self, raw: tuple[pyarrow.RecordBatch, Mapping[str, list[str]], int], place: str) -> Fields:
        """Give access to the fields of a row, which are decoded when they are used."""
        return _ArrowRow(*raw, place)


class ArrowStream(_Batches):
    """A file in Arrow's IPC stream format, as `Dataset.save_to_disk` writes them."""

    def _batches(self, content: pyarrow.NativeFile) -> Iterator[pyarrow.RecordBatch]:
        with pyarrow.ipc.open_stream(content) as reader:
            yield from reader


class Parquet(_Batches):
    """A Parquet file."""

    def _batches(self, content: pyarrow.NativeFile) -> Iterator[pyarrow.RecordBatch]:
        yield from pyarrow.parquet.ParquetFile(content).iter_batches(batch_size=1000)


class _ArrowRow(Mapping[str, Any]):
    def __init__(
        self, batch: pyarrow.RecordBatch, labels: Mapping[str, list[str]], row: int, place: str
    ) -> None:
        self._batch, self._labels, self._row, self._place = batch, labels, row, place

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch.schema.names)

    def __len__(self) -> int:
        return self._batch.num_columns

    def __getitem__(self, name: str) -> Any:
        place = self._batch.schema.get_field_index(name)
        if place < 0:
            raise KeyError(name)
        try:
            value = self._batch.column(place)[self._row].as_py()
        except UnicodeDecodeError as error:
            raise UserError(f"{self._place}: {name!r} is not UTF-8 ({error.reason}); {REPAIR}") from None
        if name not in self._labels or value is None:
            return value
        names = self._labels[name]
        if not 0 <= value < len(names):
            raise UserError(
                f"{self._place}: {name!r} is {value}, which is none of its {len(names)} labels; {REPAIR}"
            )
        return Label(value, names[value])


def _check_bounds(batch: pyarrow.RecordBatch) -> None:
    """Raise an ArrowException where the offsets of a damaged batch point outside its texts."""
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pyarrow.ArrowInvalid as error:
            # Only the row whose text is not UTF-8 is broken. Offsets are checked before texts.
            if "UTF8" not in str(error):
                raise


def _label_names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """Return the names of the classes in each column of labels, which `datasets` keeps with the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: feature["names"]
            for column, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


FILES: Mapping[str, type[RowFile]] = {
    ".jsonl": JsonLines,
    ".csv": Csv,
    ".tsv": Tsv,
    ".parquet": Parquet,
    ".arrow": ArrowStream,
}
"""The kind of file by its suffix in lower case."""


def is_row_file(path: epath.Path) -> bool:
    """Whether the suffix of a file is one of `FILES`, in lower or upper case."""
    return path.suffix.lower() in FILES


def row_file(path: epath.Path) -> RowFile:
    """Return the rows of a file whose suffix is one of `FILES`."""
    return FILES[path.suffix.lower()](path)
