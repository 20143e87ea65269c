"""What a person has to copy is whole on any terminal, and what was drawn anew is gone at the end."""

import signal
import termios
from collections import Counter
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.text import Text

from kapelle.apps.cli import pooling
from kapelle.apps.cli.output import Plain
from kapelle.apps.cli.tables import Column, print_hanging, print_table
from kapelle.testing.places import Place
from kapelle.testing.terminals import read, terminal

COLUMNS = (
    Column(name="TASK", folds=True),
    Column(name="STATE", folds=True),
    Column(name="FILES", right=True),
    Column(name="REF"),
)
REF = "refs/kapelle/35r6nwv0/kept/t-scjecdctwk5x/1"
ROWS = [("implement-the-new-cart-total", "failed", "12", REF), ("b", "of another store", "", REF.replace("1", "2"))]


def table(width: int, *, soft_wrap: bool = False) -> str:
    stream = StringIO()
    print_table(Plain(file=stream, width=width, color_system=None, soft_wrap=soft_wrap), COLUMNS, ROWS)
    return stream.getvalue()


def test_a_table_that_is_folded_is_no_wider_than_the_terminal() -> None:
    """Otherwise the terminal breaks each line of it once more."""
    said = table(80, soft_wrap=True).splitlines()
    assert len(said) > 1 + len(ROWS), "it is folded"
    assert max(map(len, said)) <= 80


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 120, 1000])
def test_nothing_in_a_table_is_cut(width: int) -> None:
    said = table(width)

    assert "…" not in said
    assert all(row[3] in said for row in ROWS)
    assert Counter(said) >= Counter("".join(cell for row in ROWS for cell in row)) - Counter({" ": 100})


def test_a_table_that_fits_is_one_and_one_that_does_not_becomes_lines() -> None:
    assert table(120).splitlines()[0].split() == ["TASK", "STATE", "FILES", "REF"]
    assert max(len(line) for line in table(80).splitlines()) <= 80
    assert table(60).splitlines()[:4] == ["implement-the-new-cart-total", "  STATE  failed", "  FILES  12", f"  REF    {REF}"]


@pytest.mark.parametrize("width", [20, 40, 1000])
def test_long_text_hangs_under_itself_and_no_word_is_broken(width: int) -> None:
    stream = StringIO()
    words = f"the limits of memory are held, see {REF} for what was kept of it"

    print_hanging(Plain(file=stream, width=width, color_system=None), Text("✓ area   "), words)

    first, *others = stream.getvalue().splitlines()
    assert first.startswith("✓ area   the ")
    assert all(line.startswith(" " * 9) and not line.endswith(" ") for line in others)
    assert " ".join([first[9:], *(line[9:] for line in others)]) == words
    assert width == 1000 or len(others) > 1


def test_ids_and_refs_are_whole_on_a_narrow_terminal(place: Place) -> None:
    tasks = "tasks: {implement-the-new-cart-total: {prompt: 'echo 1 > 1.txt; exit 1', max_attempts: 1}}\n"
    place.write("flow.yml", f"name: a-rather-long-name-of-a-workflow\ndefaults: {{agent: script, gate: none}}\n{tasks}")
    run_id = place.run("run", "../flow.yml", "--json").json["id"]
    (kept,) = place.run("recover", "--json").json
    for command, whole in (("list", run_id), ("recover", kept["ref"]), ("recover", "implement-the-new-cart-total")):
        with terminal(place, command) as (ours, process):
            process.wait(timeout=30)
            assert whole in read(ours, whole)


def test_ctrl_c_is_not_written_into_what_is_drawn_anew(place: Place) -> None:
    place.write("flow.yml", "name: x\ndefaults: {agent: script, gate: none}\ntasks: {a: {prompt: 'sleep 600'}}\n")
    with terminal(place, "run", "../flow.yml") as (ours, process):
        before = termios.tcgetattr(ours)
        read(ours, "running")
        assert not termios.tcgetattr(ours)[3] & termios.ECHOCTL
        process.send_signal(signal.SIGINT)
        read(ours, "Stopping: agents finish")
        process.send_signal(signal.SIGINT)
        seen = read(ours, "goes on.")
        assert process.wait(timeout=30) == 3
        assert termios.tcgetattr(ours) == before
    # The last that is drawn is erased line by line before the report is printed.
    assert "\x1b[2K" in seen.rpartition("Interrupted")[0]


def test_a_terminal_tells_what_a_person_must_approve_and_how_much_there_is(place: Place) -> None:
    tasks = "{one: {approval: true, prompt: 'true'}, two: {approval: true, prompt: 'true'}}"
    place.write("flow.yml", f"name: x\ndefaults: {{agent: script, gate: none}}\ntasks: {tasks}\n")
    with terminal(place, "run", "../flow.yml", width=80) as (ours, process):
        seen = read(ours, "2 wait for you: kapelle inbox")
        ids = {item["name"]: item["id"] for item in place.run("inbox", "--json").json}
        assert f"one: waits for approval: kapelle approve {ids['one']}" in seen
        assert f"two: waits for approval: kapelle approve {ids['two']}" in seen
        assert place.run("answer", "one", "allow").code == 0
        read(ours, "1 waits for you: kapelle inbox")
        assert place.run("answer", "two", "allow").code == 0
        read(ours, "2/2 tasks")
        assert process.wait(timeout=30) == 0


def test_a_pool_with_long_names_is_still_a_table() -> None:
    row = ("reviewer-with-a-rather-long-name", "shop", "1", "1", "0", "1", "warm 1")
    stream = StringIO()
    print_table(Plain(file=stream, width=80, color_system=None), pooling.COLUMNS, [row])
    lines = stream.getvalue().splitlines()
    assert lines[0].split()[:2] == ["AGENT", "PROJECT"]
    assert all(cell_len(line) <= 80 for line in lines)
