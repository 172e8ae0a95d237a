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


def test_a_pipe_in_a_cell_does_not_end_the_cell_in_markdown():
    assert markdown_table(("method", "x"), [["A B|C", "1"]]).endswith("| A B\\|C | 1 |\n")
