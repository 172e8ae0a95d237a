"""Tables in Markdown and in LaTeX."""

from poly_jax.reporting.table import latex_table, markdown_table

COLUMNS, ROWS = ("method", "a_b"), [["X & Y", "50%"]]


def test_markdown_aligns_numbers_right():
    assert markdown_table(COLUMNS, ROWS) == "| method | a_b |\n| --- | ---: |\n| X & Y | 50% |\n"


def test_special_characters_of_latex_are_escaped():
    assert latex_table(COLUMNS, ROWS).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"method & a\_b \\",
        r"\midrule",
        r"X \& Y & 50\% \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
