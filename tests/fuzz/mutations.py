"""Ways to damage a file, each a function of the file's bytes and a seeded generator."""

import json
import pathlib
import random
import re
import shutil
from collections.abc import Callable
from typing import Any

_VALUES: list[Any] = [
    None,
    "x",
    "",
    -1,
    0,
    1.5,
    True,
    False,
    [],
    {},
    [None],
    {"x": 1},
    10**9,
    10**30,
    "\u0000",
]


def mutate(path: pathlib.Path, kind: str, seed: str) -> None:
    """Damage a file in place."""
    if kind == "delete":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(_KINDS[kind](path.read_bytes(), random.Random(f"{seed} {path.name} {kind}")))


def kinds_for(path: pathlib.Path) -> list[str]:
    """The kinds of damage that apply to a file."""
    kinds = ["delete", "folder", *(kind for kind in _KINDS if not kind.startswith("leaf"))]
    if path.suffix == ".safetensors":
        return [*kinds, *(f"leaf_of_header_{i}" for i in range(4))]
    return [*kinds, *(f"leaf_{i}" for i in range(6))] if _is_json(path) else kinds


def _is_json(path: pathlib.Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _flip(content: bytes, rng: random.Random, count: int = 1) -> bytes:
    flipped = bytearray(content)
    for _ in range(count if content else 0):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _not_utf8(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + b"\xff\xfe\x80" + content[place:]


def _huge_number(content: bytes, rng: random.Random) -> bytes:
    """Replace a number in a text by one of 25 digits, or eight bytes of a binary file by a large number."""
    numbers = list(re.finditer(rb"\d+", content))
    if numbers and _is_text(content):
        chosen = rng.choice(numbers)
        return content[: chosen.start()] + b"9" * 25 + content[chosen.end() :]
    place = rng.randrange(max(len(content) - 8, 1))
    return content[:place] + b"\xff" * 7 + b"\x7f" + content[place + 8 :]


def _is_text(content: bytes) -> bool:
    try:
        return content.decode().isprintable() or b"\n" in content
    except UnicodeDecodeError:
        return False


def _leaf(content: bytes, rng: random.Random) -> bytes:
    """JSON in which one value is replaced by one of another type, or left out."""
    document = json.loads(content)
    places: list[tuple[Any, Any]] = []
    nodes = [document]
    while nodes:
        node = nodes.pop()
        keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        places += [(node, key) for key in keys]
        nodes += [node[key] for key in keys]
    if not places:
        return json.dumps(rng.choice(_VALUES)).encode()
    node, key = rng.choice(places)
    if rng.random() < 0.2:
        del node[key]
    else:
        node[key] = rng.choice(_VALUES)
    return json.dumps(document).encode()


def _leaf_of_header(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file in whose header one value is replaced or left out."""
    size = int.from_bytes(content[:8], "little")
    header = _leaf(content[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


_KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda content, rng: b"",
    "cut_in_half": lambda content, rng: content[: len(content) // 2],
    "cut_somewhere": lambda content, rng: content[: rng.randrange(len(content) + 1)],
    "cut_at_the_end": lambda content, rng: content[:-1],
    "longer": lambda content, rng: content + rng.randbytes(9),
    "flip": _flip,
    "flip_another": _flip,
    "flip_many": lambda content, rng: _flip(content, rng, 20),
    "random_bytes": lambda content, rng: rng.randbytes(len(content)),
    "not_utf8": _not_utf8,
    "huge_number": _huge_number,
    "list": lambda content, rng: b"[]",
    "object": lambda content, rng: b"{}",
    "null": lambda content, rng: b"null",
    "text": lambda content, rng: b"a text\n",
    "deep_lists": lambda content, rng: b"[" * 100_000 + b"]" * 100_000,
    "deep_objects": lambda content, rng: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "lone_surrogate": lambda content, rng: b'{"inputs": "\\ud800", "\\udc00": ["\\udfff"]}',
    **{f"leaf_{i}": _leaf for i in range(6)},
    **{f"leaf_of_header_{i}": _leaf_of_header for i in range(4)},
}


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Make a fresh copy of a subject."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
