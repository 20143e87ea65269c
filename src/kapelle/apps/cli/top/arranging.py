"""How much room everything on the screen gets, from its size and what there is to show; pure."""

from collections.abc import Mapping

from rich.text import Text

from kapelle.apps.cli.top.fitting import GAP, Panel, heights, joined
from kapelle.core.frozen import frozen

WIDE = 150
"""Letters from which on panels stand side by side."""
LOW = 24
"""Lines below which panels do without headings."""
LEFT = 3 / 5
"""The share of a wide screen that is left of what stands side by side."""
LEAST = {"agents": 3, "questions": 2, "queue": 2, "spend": 2}
"""Rows that a panel has at least, if it has so many and there is room."""
TITLE, HEADING = 1, 1
"""Lines of a panel above its rows."""
AROUND = 4
"""Lines for who leads, the host, what was said, and the keys."""
BESIDE = "spend"
"""The panel that stands beside the others, below the agents, where there is room."""

KEYS: tuple[tuple[str, str, str, str], ...] = (
    ("a", "attach", "attach", "look over the chosen agent's shoulder (`kapelle attach`); Ctrl-C or Ctrl-b d comes back"),
    ("f", "freeze", "freeze", "hold the chosen agent still, or let it go on"),
    ("s", "speak", "say", "say a line to the chosen agent, when its turn is over"),
    ("x", "stop", "stop", "end the chosen agent; its task waits until `kapelle resume TASK`"),
    ("i", "answer", "answer", "answer the chosen question (Enter does, among the questions)"),
    ("h", "halt", "halt", "stop everything, or let everything go on"),
    ("slash", "filter", "filter", "show what has a word in it; an empty one shows all"),
    ("question_mark", "help", "help", "this page"),
    ("q", "quit", "quit", "leave; everything goes on without you"),
)
"""Key, what it does here, in a word, in a line."""
SHOWN = {"slash": "/", "question_mark": "?"}
"""How keys are called by people."""


@frozen
class Room:
    """The room of one panel."""

    width: int
    height: int


@frozen
class Arrangement:
    """The room of everything."""

    wide: bool
    heading: bool
    """Whether columns have their names above them."""
    left: int
    """Letters for what stands left, and right of it."""
    right: int
    panels: Mapping[str, Room]


def arrange(shown: Mapping[str, Panel], width: int, height: int, notes: int) -> Arrangement:
    """Return how much room each panel gets on a screen with so many lines of *notes*."""
    wide, heading = width >= WIDE, height >= LOW
    left = round(width * LEFT) if wide else width
    over = {name: TITLE + (HEADING if heading and panel.rows else 0) for name, panel in shown.items()}
    rows = {name: len(panel.rows) for name, panel in shown.items()}
    stacked = [name for name in shown if not (wide and name == BESIDE)]
    room = height - AROUND - notes
    left_for_rows = room - sum(over[name] for name in stacked)
    given = heights(left_for_rows, [rows[name] for name in stacked], [LEAST[name] for name in stacked])
    found = {name: over[name] + count for name, count in zip(stacked, given, strict=True)}
    if wide:
        found[BESIDE] = min(over[BESIDE] + rows[BESIDE], max(room - found["agents"], over[BESIDE]))
    widths = {name: width - left if name == BESIDE else left - GAP for name in shown} if wide else {}
    widths["agents"] = width
    return Arrangement(
        wide=wide,
        heading=heading,
        left=left,
        right=width - left if wide else width,
        panels={name: Room(width=widths.get(name, width), height=found[name]) for name in shown},
    )


def keys_line(width: int) -> Text:
    """Return the keys as far as there is room for them; first of all those that say what the others are."""
    parts = [Text.assemble((SHOWN.get(key, key), "bold cyan"), f" {word}") for key, _, word, _ in KEYS]
    return joined([parts[-2], parts[-1], *parts[:-2]], width, gap="  ")
