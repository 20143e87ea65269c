"""Tables that fit the terminal: nothing in them is ever cut, for a person may have to copy it.

What is too wide is folded where a column may be; where that does not help, each row becomes lines of its own.
"""

from collections.abc import Iterable, Sequence
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kapelle.core.frozen import frozen
from kapelle.core.plain_text import shown

GAP = 2
NARROWEST = 10
"""Letters that a column which is folded keeps, unless it says otherwise; with fewer it cannot be read."""


@frozen
class Column:
    """One column: what stands above it, and how it is set."""

    name: str
    right: bool = False
    folds: bool = False
    """Whether it may be broken into several lines: never what has to be copied."""
    least: int = NARROWEST
    """Letters that it keeps then: with fewer, each row becomes lines of its own."""


def print_table(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print *rows* as a table, or as lines of their own where no table can hold them."""
    cells = [[_plain(cell) for cell in row] for row in rows]
    widths = [max([len(column.name), *(cell_len(row[at].plain) for row in cells)]) for at, column in enumerate(columns)]
    gaps = GAP * (len(columns) - 1)
    folded = [min(width, column.least) if column.folds else width for column, width in zip(columns, widths, strict=True)]
    if sum(folded) + gaps > console.width:
        _print_lines(console, columns, cells)
        return
    folds = sum(widths) + gaps > console.width
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for column, narrowest in zip(columns, folded, strict=True):
        table.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=not (folds and column.folds),
            overflow="fold",
            min_width=narrowest,
        )
    for row in cells:
        table.add_row(*row)
    # A terminal that breaks lines by itself is for what is too long; with columns that fold nothing is.
    console.print(table, soft_wrap=False if folds else None)


def print_hanging(console: Console, lead: Text, text: str, style: str = "") -> None:
    """Print *text* behind *lead*, and under itself where it is longer than a line; it is broken between words alone."""
    indent = cell_len(lead.plain)
    room = max(console.width - indent, NARROWEST)
    # A word that is longer than a line is left to the terminal, which gives it back whole to whoever copies it.
    lines = [line for part in text.splitlines() for line in wrap(part, room, break_long_words=False, break_on_hyphens=False)]
    for at, line in enumerate(lines):
        console.print(Text.assemble(lead if at == 0 else " " * indent, (line, style)), soft_wrap=True)


def _print_lines(console: Console, columns: Sequence[Column], cells: Sequence[Sequence[Text]]) -> None:
    longest = max(len(column.name) for column in columns)
    for row in cells:
        # The terminal breaks what is too long, and gives it back whole to whoever copies it.
        console.print(Text(row[0].plain, style="bold"), soft_wrap=True)
        for column, cell in zip(columns[1:], row[1:], strict=True):
            if cell.plain:
                console.print(Text.assemble((f"  {column.name:<{longest}}  ", "dim"), cell), soft_wrap=True)


def _plain(cell: str | Text) -> Text:
    """Return *cell* in one line that steers no terminal, so that it is as wide as it looks."""
    if isinstance(cell, str):
        return Text(shown(cell))
    return cell if shown(cell.plain) == cell.plain else Text(shown(cell.plain), style=cell.style)
