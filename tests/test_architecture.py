"""The parts of the package: none imports a part above it, one part uses gin, and the diagram is up to date.

Run this file as a program to update the diagram in docs/architecture.md.
"""

import contextlib
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BLOCK = re.compile(r"(?<=```mermaid\n).*?(?=```)", re.DOTALL)


IMPORTS = """
import grimp, json
graph = grimp.build_graph("poly_jax", cache_dir=None)
print(json.dumps([(module, other) for module in graph.modules
                  for other in graph.find_modules_directly_imported_by(module)]))
"""


@contextlib.contextmanager
def installed() -> Iterator[pathlib.Path]:
    """A folder that holds the package as it is installed: with the top-level folder tasks/ in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
        (folder / "poly_jax").mkdir()
        for place in (ROOT / "tasks", *(ROOT / "poly_jax").iterdir()):
            if not (folder / "poly_jax" / place.name).exists():
                (folder / "poly_jax" / place.name).symlink_to(place)
        yield folder


def run_in(folder: pathlib.Path, *command: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def parts() -> set[str]:
    package = ROOT / "poly_jax"
    folders = {place.parent.name for place in package.glob("*/__init__.py")}
    modules = {place.stem for place in package.glob("*.py")} - {"__init__"}
    return folders | modules | {"tasks"}


@functools.cache
def arrows() -> set[tuple[str, str]]:
    """Pairs of parts of which the first imports the second."""
    with installed() as folder:
        done = run_in(folder, sys.executable, "-c", IMPORTS)
    assert done.returncode == 0, done.stderr
    known = parts()
    found = set()
    for imports in json.loads(done.stdout):
        pair = tuple(name.split(".")[1] for name in imports if "." in name)
        if len(pair) == 2 and pair[0] != pair[1] and set(pair) <= known:
            found.add(pair)
    return found


def picture(found: set[tuple[str, str]]) -> str:
    """A Mermaid flow chart. An arrow is left out where a longer path of arrows leads to the same part."""
    below: dict[str, set[str]] = {}
    for start, end in found:
        below.setdefault(start, set()).add(end)

    def reach(part: str) -> set[str]:
        direct = below.get(part, set())
        return direct | {further for end in direct for further in reach(end)}

    kept = [
        (start, end)
        for start, end in sorted(found)
        if not any(end in reach(other) for other in below[start] - {end})
    ]
    return "flowchart TD\n" + "".join(f"    {start} --> {end}\n" for start, end in kept)


def layers() -> list[set[str]]:
    """The parts in each layer of pyproject.toml, the highest layer first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (ordered,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [{name.strip(" ()") for name in layer.split("|")} for layer in ordered]


def test_the_import_contracts_are_kept():
    with installed() as folder:
        done = run_in(folder, pathlib.Path(sys.executable).with_name("lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_part_is_in_one_layer():
    known = layers()
    assert set().union(*known) == parts()
    assert sum(map(len, known)) == len(parts())


def test_every_import_points_to_a_lower_layer():
    height = {part: number for number, layer in enumerate(layers()) for part in layer}
    upwards = [(start, end) for start, end in sorted(arrows()) if height[start] >= height[end]]
    assert not upwards


def test_the_diagram_matches_the_imports():
    (drawn,) = BLOCK.findall(PAGE.read_text())
    assert drawn == picture(arrows()), f"draw it again: python {pathlib.Path(__file__).relative_to(ROOT)}"


@pytest.mark.parametrize(
    ("found", "drawn"),
    [
        ({("a", "b"), ("b", "c"), ("a", "c")}, "    a --> b\n    b --> c\n"),
        ({("a", "b"), ("a", "c")}, "    a --> b\n    a --> c\n"),
    ],
)
def test_the_diagram_leaves_out_only_shortcuts(found, drawn):
    assert picture(found) == f"flowchart TD\n{drawn}"


def test_the_files_that_explain_the_method_are_short_enough_for_an_hour():
    section = PAGE.read_text().partition("## The method in an hour")[2].partition("\n## ")[0]
    files = re.findall(r"`(\w+/\w+\.py)`", section)
    assert len(files) >= 10
    assert sum(len((ROOT / "poly_jax" / file).read_text().splitlines()) for file in files) < 1500


if __name__ == "__main__":
    PAGE.write_text(BLOCK.sub(lambda _: picture(arrows()), PAGE.read_text()))
