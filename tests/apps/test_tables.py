"""What a person has to copy is whole on any terminal, and what was drawn anew is gone at the end."""

import os
import pty
import signal
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from io import StringIO

import pytest
from rich.text import Text

from kapelle.apps.cli.output import Plain
from kapelle.apps.cli.tables import Column, print_hanging, print_table
from kapelle.testing.places import Place

COLUMNS = (
    Column(name="TASK", folds=True),
    Column(name="STATE", folds=True),
    Column(name="FILES", right=True),
    Column(name="REF"),
)
REF = "refs/kapelle/35r6nwv0/kept/t-scjecdctwk5x/1"
ROWS = [("implement-the-new-cart-total", "failed", "12", REF), ("b", "of another store", "", REF.replace("1", "2"))]


def table(width: int) -> str:
    stream = StringIO()
    print_table(Plain(file=stream, width=width, color_system=None), COLUMNS, ROWS)
    return stream.getvalue()


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


@contextmanager
def terminal(place: Place, *arguments: str, width: int = 60) -> "Generator[tuple[int, subprocess.Popen[bytes]]]":
    """Run a command in a terminal of its own; yield our end of it, and the process."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, width))
    with subprocess.Popen(
        [sys.executable, "-m", "kapelle", *arguments],
        cwd=place.repository,
        env={**place.environment, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        try:
            yield ours, process
        finally:
            process.kill()
            os.close(theirs)
            os.close(ours)


def read(ours: int, until: str) -> str:
    seen = ""
    with suppress(OSError):
        while until not in seen:
            seen += os.read(ours, 65536).decode(errors="replace")
    return seen


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
