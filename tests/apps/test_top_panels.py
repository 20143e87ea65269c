"""The pure parts of `kapelle top`: rows in columns, room for panels, and what a panel says."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from kapelle.apps.cli.top import panels
from kapelle.apps.cli.top.arranging import arrange, keys_line
from kapelle.apps.cli.top.fitting import Field, Panel, Row, bar, cell, filtered, fitted, heights
from kapelle.apps.fleet import Fleet, Sums, share
from kapelle.apps.health import SystemHealth
from kapelle.apps.inbox import Item
from kapelle.core.agent import ProcessRef
from kapelle.core.budget import Allowance, Budget, Level, Resource
from kapelle.core.ids import RunId, TaskId
from kapelle.core.leading import Lead
from kapelle.core.ports import Measure
from kapelle.core.question import AnswerKind
from kapelle.core.rules import Fallback

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIELDS = (Field(name="ID", keep=1), Field(name="NAME", keep=9, least=5), Field(name="SAYS", keep=5, least=6))
TEXTS = st.text(max_size=30)


def panel(*rows: tuple[str, str, str]) -> Panel:
    made = tuple(Row(key=str(at), cells=tuple(cell(text) for text in row)) for at, row in enumerate(rows))
    return Panel(title="THINGS", fields=FIELDS, rows=made, nothing="there is nothing")


def a_fleet(**changes: object) -> Fleet:
    measure = Measure(memory=8_000_000_000, memory_free=2_000_000_000, cpus=2.0, load=0.5, disk=10, disk_free=5)
    system = SystemHealth(measure=measure, store=1000, lead_age=None, gateway=None)
    values: dict[str, object] = {"at": NOON, "lead": None, "system": system, "host": "local", "slots": 4}
    return Fleet(**(values | changes))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (40, ["ID      NAME     SAYS", "g-1234  writer   works on it"]),
        (25, ["ID      NAME    SAYS", "g-1234  writer  works on…"]),
        (20, ["NAME    SAYS", "writer  works on it"]),
        (14, ["NAME   SAYS", "writer  works…"]),
        (5, ["NAME", "writ…"]),
    ],
)
def test_what_matters_least_goes_first_and_the_rest_is_cut(width: int, lines: list[str]) -> None:
    head, rows = fitted(panel(("g-1234", "writer", "works on it")), width)
    assert [" ".join(line.plain.split()) for line in (head, *rows)] == [" ".join(line.split()) for line in lines]


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=4), st.integers(1, 80))
def test_no_line_is_wider_than_the_screen(rows: list[tuple[str, str, str]], width: int) -> None:
    head, lines = fitted(panel(*rows), width)
    assert all(cell_len(line.plain) <= width for line in (head, *lines))
    assert all("\n" not in line.plain and "\x1b" not in line.plain for line in lines)


@given(st.integers(-5, 60), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=5))
def test_room_is_given_to_all_and_never_twice(room: int, asked: list[tuple[int, int]]) -> None:
    wanted, least = [each for each, _ in asked], [each for _, each in asked]
    found = heights(room, wanted, least)
    assert sum(found) <= max(room, 0)
    assert all(has <= most for has, most in zip(found, wanted, strict=True))
    if room >= sum(min(pair) for pair in asked):
        assert all(has >= min(pair) for has, pair in zip(found, asked, strict=True))
    if sum(found) < room:
        assert found == wanted


@given(st.integers(20, 300), st.integers(10, 100), st.integers(0, 3))
def test_everything_has_its_place_on_every_screen(width: int, height: int, notes: int) -> None:
    shown = dict(panels.panels(a_fleet()))
    found = arrange(shown, width, height, notes)
    assert all(0 < room.width <= width for room in found.panels.values())
    assert cell_len(keys_line(width).plain) <= width
    assert keys_line(width).plain.startswith("? help")


@pytest.mark.parametrize(("of_all", "drawn"), [(0, "░░░░"), (0.01, "█░░░"), (0.5, "██░░"), (1, "████"), (7, "████")])
def test_a_bar_shows_whether_there_is_anything_at_all(of_all: float, drawn: str) -> None:
    assert bar(of_all, 4) == drawn


def test_a_filter_takes_large_letters_for_small_ones() -> None:
    both = panel(("g-1", "Writer", ""), ("g-2", "reader", ""))
    assert [row.key for row in filtered(both, "wRI").rows] == ["0"]
    assert filtered(both, "nobody").nothing == "nothing here has 'nobody' in it"
    assert filtered(both, "") is both


def test_who_leads_or_that_nobody_does_stands_above() -> None:
    assert "nobody leads: kapelle resume" in [part.plain for part in panels.head(a_fleet())]
    lead = Lead(term=3, holder=ProcessRef(boot_id="b", pid=7, started="1"), renewed_at=NOON)
    said = [part.plain for part in panels.head(a_fleet(lead=lead))]
    assert "process 7 leads (term 3)" in said


def test_a_halt_and_a_question_are_told() -> None:
    halt = Item(item_id="h-1", kind="halt", run_id=RunId(""), name="everything", what="", why="halted by person:me")
    asked = Item(
        item_id="i-1",
        kind="question",
        run_id=RunId("r-1"),
        task_id=TaskId("t-1"),
        name="api",
        what="Bash: rm -r \x1b[31m",
        answers=tuple(AnswerKind),
        deadline_at=NOON + timedelta(minutes=5),
        default=Fallback.DENY,
    )
    found = a_fleet(items=(halt, asked))
    assert [note.plain for note in panels.notes(found)] == [" HALTED  halted by person:me "]
    (row,) = panels.questions(found).rows
    said = [each.plain for each in row.cells]
    assert said == ["i-1", "api", "Bash: rm -r \\x1b[31m", "", "5m00s, then deny", "allow deny always"]


@pytest.mark.parametrize(
    ("spent", "drawn", "note"),
    [(1.0, "██░░░░░░░░  20%", ""), (5.5, "██████████ 110%", "spent"), (750.0, "██████████ 150x", "spent")],
)
def test_how_full_a_budget_is(spent: float, drawn: str, note: str) -> None:
    budget = Budget(key="run:r-1", name="run shop", allowance=Allowance(usd=5.0))
    level = Level(budget=budget, resource=Resource.USD, limit=5.0, spent=spent)
    shown = panels.spend(a_fleet(sums=Sums(levels=(level,))))
    assert shown.title == "SPEND  $0.00 today" + (" · 1 budget spent" if note else "")
    row = shown.rows[1]
    assert [each.plain for each in row.cells] == ["budget of run shop", f"${spent:.2f} of $5.00", drawn, "", "", note]
    assert share(level) == spent / 5
