"""Reads JSON that comes from outside, strictly: bounded in size and depth, and of the expected types."""

import json
import math
import re
from typing import Any

from etils import epath

from poly_jax.errors import UserError
from poly_jax.files.json_fields import is_kind, kind_name, shown
from poly_jax.files.text_file import COPY, MAX_BYTES, decode, read_text

MAX_DEPTH = 100
"""The largest number of nested levels; real files have about ten."""

# JSON can express half of a surrogate pair, which UTF-8 cannot encode and no tokenizer reads.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(
    path: epath.PathLike,
    kind: type = dict,
    *,
    max_bytes: int = MAX_BYTES,
    allow_nan: bool = False,
    advice: str = COPY,
) -> Any:
    """Read a JSON file, local or remote (gs://).

    Args:
      path: path of the file, which is UTF-8 with or without a byte order mark.
      kind: required type of its top level: `dict`, `list`, or `object` for either or a plain value.
      max_bytes: the largest size that is read.
      allow_nan: whether the tokens NaN, Infinity and -Infinity, which are not JSON, are read as Python does.
      advice: instruction to the user in an error message.

    Raises:
      UserError: the file is missing, too large or not UTF-8, or `parse_json` refuses it.
    """
    return parse_json(read_text(path, max_bytes, advice), path, kind, allow_nan=allow_nan, advice=advice)


def parse_json(
    text: str | bytes,
    place: object,
    kind: type = dict,
    *,
    allow_nan: bool = False,
    advice: str = COPY,
) -> Any:
    """Parse JSON, such as one line of a file.

    Args:
      text: the JSON; bytes must be UTF-8.
      place: name of the text in errors: a path, or a path and a line such as "input.jsonl, line 3".
      kind: required type of its top level: `dict`, `list`, or `object` for anything.
      allow_nan: whether the tokens NaN, Infinity and -Infinity, which are not JSON, are read as Python does.
      advice: instruction to the user in an error message.

    Raises:
      UserError: the text is not JSON, nests deeper than `MAX_DEPTH`, has a key twice in an object, a number
        too large for a float, half of a surrogate pair, or another type of top level.
    """
    if isinstance(text, bytes):
        text = decode(text, place, advice)
    try:
        content = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=None if allow_nan else _refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise UserError(_too_deep(place, advice)) from None
    except ValueError as e:
        raise UserError(f"{place} is not valid JSON ({e}); {advice}") from None
    _check_depth(content, place, advice)
    if _SURROGATE.search(text):
        _check_surrogates(content, place, advice)
    if kind is not object and not is_kind(content, kind):
        raise UserError(
            f"{place} holds {kind_name(type(content))} where {kind_name(kind)} is needed; {advice}"
        )
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"an object has the key {shown(key)} twice")
            seen.add(key)
    return content


def _refuse_constant(token: str) -> Any:
    raise ValueError(f"{token} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {shown(text)} is too large")
    return value


def _too_deep(place: object, advice: str) -> str:
    return f"{place} nests JSON deeper than {MAX_DEPTH} levels; {advice}"


def _check_depth(content: Any, place: object, advice: str) -> None:
    level = [content] if isinstance(content, dict | list) else []
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise UserError(_too_deep(place, advice))
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]


def _check_surrogates(content: Any, place: object, advice: str) -> None:
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as e:
        half = ascii(e.object[e.start])
        raise UserError(f"{place} has half of a surrogate pair ({half}); {advice}") from None
