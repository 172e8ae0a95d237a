"""The commands and the recipes that docs/benchmarks.md names exist, and each command selects tests."""

import ast
import pathlib
import re
import shlex

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
COMMANDS = sorted(set(re.findall(r"`(python [^`]*)`", PAGE)))


def names_of_tests(path):
    """The names of the tests in a file or a folder, and of their classes."""
    for file in sorted(path.rglob("test_*.py")) if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test"):
                yield node.name.lower()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_names_files_that_exist_and_words_that_choose_among_their_tests(command):
    words = shlex.split(command)[1:]
    if words[:2] != ["-m", "pytest"]:
        assert (ROOT / words[0]).is_file()
        return
    files, chosen = words[2:], ""
    if "-k" in files:
        *files, _, chosen = files
    names = [name for file in files for name in names_of_tests(ROOT / file)]
    assert names
    for word in chosen.lower().split(" or ") if chosen else ():
        assert 0 < sum(word in name for name in names) < len(names)
        # pytest compares the word with the names of files as well, where it would choose every test.
        assert not any(word in pathlib.Path(file).stem for file in files)


def test_the_recipes_of_the_page_exist():
    recipes = re.findall(r"`(recipes/\S+?\.gin)`", PAGE)
    assert len(recipes) == 13
    assert not [recipe for recipe in recipes if not (ROOT / "gin" / recipe).is_file()]
