"""Tables of results for the terminal, for Markdown and for LaTeX."""

import re
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

Rows = Sequence[Sequence[str]]


def print_table(title: str, columns: Sequence[str], rows: Rows, n_texts: int = 1) -> None:
    """Print a table whose first `n_texts` columns are text and whose other columns are numbers."""
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < n_texts else "right")
    for row in rows:
        table.add_row(*row)
    print_whole(table)


def print_whole(table: Table) -> None:
    """Print a table; a file or pipe gets its full width, whatever the width of the terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    console.print(table)


def markdown_table(columns: Sequence[str], rows: Rows) -> str:
    """The table in Markdown, its numbers aligned to the right. A pipe in a cell is escaped."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped) + "\n"


def latex_table(columns: Sequence[str], rows: Rows) -> str:
    """The table as a LaTeX tabular with the rules of booktabs."""
    body = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in rows]
    head = " & ".join(_latex(column) for column in columns) + r" \\"
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}", r"\toprule", head, r"\midrule", *body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex(text: str) -> str:
    return re.sub(r"[&%$#_{}]", lambda special: "\\" + special[0], text)
