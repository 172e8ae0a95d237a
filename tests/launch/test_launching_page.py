"""The commands of docs/launching.md and of the pages of targets print what the pages say."""

import itertools
import pathlib
import re
import shlex

import pytest

from poly_jax import cli
from poly_jax.launch.choices import ACTIONS, PLACES
from poly_jax.launch.launching import LOCAL
from poly_jax.launch.targets import TARGETS

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
TARGET_PAGES = {page.stem: page.read_text() for page in sorted((DOCS / "launching").glob("*.md"))}
PAGE = "\n".join([(DOCS / "launching.md").read_text(), *TARGET_PAGES.values()])
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHOWN = [
    (shlex.split(command.replace("\\\n", "")), output)
    for (language, command), (_, output) in itertools.pairwise(BLOCKS)
    if language == "sh"
]
MISTAKES = re.findall(r"^    \$ poly-jax (.*)\n    (poly-jax: error: .*)$", PAGE, re.MULTILINE)


def value(flag, words):
    return next((word.partition("=")[2] for word in words if word.startswith(f"--{flag}=")), None)


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("number", range(len(SHOWN)))
def test_a_command_prints_what_the_page_shows(capsys, number):
    words, shown = SHOWN[number]
    pathlib.Path("job.yaml").write_text(dict(BLOCKS)["yaml"])
    assert (words[0], "--dry_run" in words) == ("poly-jax", True)
    assert cli.main(words[1:]) == 0
    # A line of three dots on the page stands for any lines.
    expected = re.escape(shown).replace(re.escape("...\n"), r"(?:.*\n)*?")
    printed = capsys.readouterr().out
    assert re.fullmatch(expected, printed), printed


def test_every_target_has_a_page_that_shows_how_a_job_is_started():
    assert set(PLACES) == {*TARGETS, LOCAL} == set(TARGET_PAGES)
    for target in PLACES:
        assert TARGET_PAGES[target].split("\n")[0].endswith(f": `--target={target}`")
        assert any((value("target", words), value("action", words)) == (target, None) for words, _ in SHOWN)


@pytest.mark.parametrize("target", TARGETS)
def test_the_page_shows_the_commands_for_a_started_job_of_every_target(target):
    shown = {value("action", words) for words, _ in SHOWN if value("target", words) == target}
    assert shown >= {*ACTIONS} - {"submit"}


def test_each_command_is_followed_by_its_output():
    languages = [language for language, _ in BLOCKS]
    assert languages.count("sh") == languages.count("text") == len(SHOWN)


def test_the_page_shows_mistakes_in_the_slice_the_bucket_and_the_action():
    assert [re.search(r"slice|bucket|--action", told)[0] for _, told in MISTAKES] == [
        "slice",
        "bucket",
        "--action",
    ]


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_the_mistakes_on_the_page_get_the_line_that_it_shows(capsys, number):
    words, told = MISTAKES[number]
    pathlib.Path("job.yaml").write_text(dict(BLOCKS)["yaml"])
    assert cli.main(shlex.split(words)) == 1
    assert capsys.readouterr().err == f"{told}\n"
