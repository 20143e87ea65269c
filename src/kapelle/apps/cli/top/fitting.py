"""Rows in as many columns of letters as there are: one line each, cut at the end where they must be; pure.

A screen that is drawn anew every second shows what fits. Nothing has to be copied from it: ids are completed by the commands,
and ``kapelle top --once`` cuts nothing.
"""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.text import Text

from kapelle.core.frozen import frozen
from kapelle.core.plain_text import shown

GAP = 2
MORE = "…"


@frozen
class Field:
    """A column of a panel."""

    name: str
    keep: int
    """Where there is no room for all, the one with the lowest number goes first."""
    least: int = 0
    """Letters that it may be cut down to; 0: it is never cut."""
    right: bool = False


@frozen
class Row:
    """A line of a panel: what it stands for, and a cell for each field."""

    key: str
    cells: tuple[Text, ...]


@frozen
class Panel:
    """One of the lists on the screen."""

    title: str
    fields: tuple[Field, ...]
    rows: tuple[Row, ...]
    nothing: str
    """What is said when there are no rows."""


def cell(text: str, style: str = "") -> Text:
    """Return *text*, which may be anybody's, as a cell that steers no terminal."""
    return Text(shown(text), style=style, end="")


def filtered(panel: Panel, word: str) -> Panel:
    """Return *panel* with those rows alone in which *word* stands somewhere, in large letters or small ones."""
    if not word:
        return panel
    wanted = word.casefold()
    rows = tuple(row for row in panel.rows if any(wanted in each.plain.casefold() for each in row.cells))
    nothing = f"nothing here has {word!r} in it" if panel.rows else panel.nothing
    return Panel(title=panel.title, fields=panel.fields, rows=rows, nothing=nothing)


def fitted(panel: Panel, width: int) -> tuple[Text, list[Text]]:
    """Return the heading of *panel* and a line for each of its rows, none wider than *width*."""
    widths = _widths(panel, width)
    heads = [Text(field.name, style="bold", end="") for field in panel.fields]
    return _line(panel.fields, heads, widths), [_line(panel.fields, row.cells, widths) for row in panel.rows]


def _widths(panel: Panel, width: int) -> dict[int, int]:
    """Return how wide each field is that has room."""
    natural = [
        max([len(field.name), *(cell_len(row.cells[at].plain) for row in panel.rows)]) for at, field in enumerate(panel.fields)
    ]
    # A column in which nothing stands says nothing.
    told = [at for at in range(len(panel.fields)) if not panel.rows or any(row.cells[at].plain for row in panel.rows)]
    while len(told) > 1 and _sum(min(natural[at], panel.fields[at].least or natural[at]) for at in told) > width:
        told.remove(min(told, key=lambda at: panel.fields[at].keep))
    widths = {at: natural[at] for at in told}
    while (over := _sum(widths.values()) - width) > 0:
        wide = [at for at in told if panel.fields[at].least and widths[at] > panel.fields[at].least]
        if not wide:
            widths[told[-1]] = max(widths[told[-1]] - over, 1)
            break
        widest = max(wide, key=lambda at: widths[at])
        widths[widest] -= 1
    return widths


def _sum(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + GAP * max(len(found) - 1, 0)


def _line(fields: Sequence[Field], cells: Sequence[Text], widths: dict[int, int]) -> Text:
    line = Text(end="", no_wrap=True, overflow="ellipsis")
    for number, (at, width) in enumerate(widths.items()):
        if number:
            line.append(" " * GAP)
        line.append_text(set_to(cells[at], width, right=fields[at].right))
    return line


def set_to(text: Text, width: int, *, right: bool = False) -> Text:
    """Return *text* exactly so wide: cut, or with blanks."""
    found = text.copy()
    if cell_len(found.plain) > width:
        found.truncate(width, overflow="ellipsis")
    blank = " " * (width - cell_len(found.plain))
    return Text.assemble(blank, found, end="") if right else found.append(blank)


def joined(parts: Sequence[Text], width: int, gap: str = " · ") -> Text:
    """Return as many of *parts* in one line as there is room for, the first first; the first may be cut."""
    line = set_to(parts[0], min(cell_len(parts[0].plain), width)) if parts else Text()
    for part in parts[1:]:
        if cell_len(line.plain) + cell_len(gap) + cell_len(part.plain) > width:
            break
        line = Text.assemble(line, (gap, "dim"), part)
    return line


def bar(share: float, width: int) -> str:
    """Return a bar of which so much is filled."""
    full = min(max(round(share * width), 1 if share > 0 else 0), width)
    return "█" * full + "░" * (width - full)


def heights(room: int, wanted: Sequence[int], least: Sequence[int]) -> list[int]:
    """Share *room* lines out: first everybody gets the *least*, line by line in turn, and then what is *wanted*."""
    found = [0] * len(wanted)
    for bound in ([min(pair) for pair in zip(wanted, least, strict=True)], wanted):
        while room > 0 and any(has < most for has, most in zip(found, bound, strict=True)):
            for at, most in enumerate(bound):
                if room > 0 and found[at] < most:
                    found[at] += 1
                    room -= 1
    return found
