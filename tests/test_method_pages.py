"""The pages of docs/: links, files, tests and gin lines exist, lines are short, methods name sources."""

import pathlib
import re

import pytest

from poly_jax import configuration
from poly_jax.configurables import import_configurables
from poly_jax.configuration import explanation
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name
from poly_jax.transfer.variants import VARIANTS

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
METHODS = sorted((DOCS / "methods").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def anchors(page):
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_lines_outside_code_and_tables_have_at_most_110_characters(page):
    lines = "\n".join(page.read_text().split("\n```")[::2]).splitlines()
    assert [line for line in lines if len(line) > 110 and not line.startswith(("    ", "|"))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_has_a_target(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.stem)
def test_a_method_has_a_formula_a_source_and_tests_that_exist(page):
    text = page.read_text()
    assert re.search(r"^    .* = ", text, re.MULTILINE)
    assert re.search(r"^Sources?: ", text, re.MULTILINE)
    checked = text[text.index("Checked ") :]
    files = re.findall(r"`(test\S+\.py)`", checked)
    assert files
    for file in files:
        assert list(ROOT.glob(file)) or list((ROOT / "tests").rglob(file)), file


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.stem)
def test_the_gin_lines_of_a_method_name_existing_parameters(page):
    text = page.read_text()
    for file in re.findall(r"include '([^']+)'", text):
        assert configuration.find(file)
    import_configurables()
    known = explanation.parameters()
    for line in re.findall(r"^    (\w\S*\.\w+) = ", text, re.MULTILINE):
        name, _, parameter = line.rpartition("/")[2].rpartition(".")
        assert parameter in known[name], line


def test_the_benchmark_tasks_named_in_the_pages_exist():
    bench = benchmark()
    known = {registered_name(task.name) for task in (*bench.train, *bench.heldout)}
    for page in (ROOT / "README.md", *DOCS.rglob("*.md")):
        named = set(re.findall(r"\bskillbench_[a-z]{3}\b", page.read_text()))
        assert named <= known, (page.name, named - known)


def test_every_method_and_variant_is_in_the_overview():
    overview = (DOCS / "methods.md").read_text()
    for page in METHODS:
        assert f"methods/{page.name}" in overview
    adapting = (DOCS / "transfer.md").read_text()
    for name in VARIANTS:
        assert f"`{name}`" in adapting


def test_the_pages_of_extensions_have_as_many_files_as_the_table_says():
    table = (DOCS / "architecture.md").read_text()
    rows = re.findall(r"^\| a .* \| (\d): .* \| \d: .* \| \[.*\]\((new_\w+\.md)\) \|$", table, re.MULTILINE)
    assert {page for _, page in rows} == {page.name for page in DOCS.glob("new_*.md")}
    for count, page in rows:
        files = re.findall(r"^```(?:python|gin)$", (DOCS / page).read_text(), re.MULTILINE)
        assert len(files) == int(count), page
