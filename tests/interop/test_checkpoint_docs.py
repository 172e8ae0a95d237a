"""docs/checkpoints.md shows the tables of options against which the readers check files."""

import pathlib

import pytest

from poly_jax.interop.peft import options
from poly_jax.weights.hugging_face_config import OPTIONS
from poly_jax.weights.option_table import OptionTable, neutral, refused, used

TABLES = (OPTIONS, options.LORA, options.IA3, options.POLY)
DOCS = pathlib.Path(__file__).parents[2] / "docs" / "checkpoints.md"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_the_docs_show_the_table_that_the_code_uses(table):
    shown = f"### {table.title}\n\n{table.markdown()}\n"
    assert shown in DOCS.read_text(), f"put this into {DOCS}:\n\n{shown}"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_every_option_is_listed_once(table):
    names = [name for option in table.options for name in option.names]
    assert len(names) == len(set(names))


def test_a_table_has_one_line_for_each_way_of_handling_an_option():
    table = OptionTable(
        "x",
        (used("a b", "sizes"), neutral("c", "a name"), refused("d", None, 1.5, note="no other")),
        (None, {}),
    )
    assert table.markdown().splitlines()[2:] == [
        "| `a`, `b` | used | sizes |",
        "| `c` | neutral | a name |",
        "| `d` | refused unless `null` or `1.5` | no other |",
        "| any other | refused unless `null`, `{}` | its effect is not known |",
    ]
