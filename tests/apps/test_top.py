"""`kapelle top`: what is on the screen, what its keys do, and that it goes on whatever happens to the store and the leader."""

import os
import pty
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from textual.pilot import Pilot

from kapelle.apps.cli.top.arranging import keys_line
from kapelle.apps.cli.top.dialogs import Answer, Confirm, Help, Line
from kapelle.apps.cli.top.screen import Top
from kapelle.apps.settings import Configuration, load
from kapelle.testing.places import Place, until

AGENTS = """\
agents:
  script: {program: command, sandbox: process, limit: 2}
  warm: {program: command, sandbox: process}
"""
WORKFLOW = """\
name: fleet
defaults: {agent: script, gate: none}
tasks:
  api: {prompt: "mkfifo go; read answer < go", priority: high}
  ui: {prompt: "mkfifo go; read answer < go", priority: high}
  third: {prompt: "true"}
  fourth: {prompt: "true", needs: [third]}
  asked: {prompt: "true", approval: true}
"""
WITHIN = 20.0
"""Seconds within which something comes that is waited for."""


@pytest.fixture
def fleet(place: Place) -> Place:
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS, encoding="utf-8")
    place.write("flow.yml", WORKFLOW)
    return place


@pytest.fixture
def led(fleet: Place) -> Iterator["subprocess.Popen[str]"]:
    """A run of two agents at work, with somebody who leads."""
    process = fleet.start("run", "../flow.yml")
    try:
        for _ in range(2):
            until(process, ": started")
        yield process
    finally:
        fleet.run("cancel", "fleet")
        if process.poll() is not None:
            fleet.run("resume")
        process.communicate(timeout=60)


def configured(place: Place) -> Configuration:
    return load(place.repository, environment=place.environment)


class Shown:
    """The screen, and the keys before it."""

    def __init__(self, pilot: Pilot[None], app: Top, ran: list[tuple[str, ...]]) -> None:
        self.app, self.ran = app, ran
        self._pilot = pilot

    def text(self) -> str:
        """What stands on it."""
        return "\n".join(strip.text.rstrip() for strip in self.app.screen._compositor.render_strips())

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def type(self, text: str) -> None:
        await self._pilot.press(*("space" if letter == " " else letter for letter in text), "enter")

    async def resize(self, width: int, height: int) -> None:
        await self._pilot.resize_terminal(width, height)

    async def until(self, seen: str | Callable[[], bool]) -> str:
        """Wait until that is on the screen, or so."""
        begun = time.monotonic()
        while True:
            text = self.text()
            if seen in text if isinstance(seen, str) else seen():
                return text
            assert time.monotonic() < begun + WITHIN, f"{seen} never came:\n{text}"
            await self._pilot.pause(0.05)


@asynccontextmanager
async def screen(place: Place, width: int = 110, height: int = 40) -> AsyncIterator[Shown]:
    ran: list[tuple[str, ...]] = []

    def run(*arguments: str, folder: Path | None) -> int:
        ran.append((*arguments, str(folder)))
        return 0

    app = Top(configured(place), place.repository, run=run)
    async with app.run_test(size=(width, height)) as pilot:
        yield Shown(pilot, app, ran)


async def test_everything_is_on_the_screen(fleet: Place, led: "subprocess.Popen[str]") -> None:
    async with screen(fleet) as shown:
        seen = await shown.until("third")
        assert f"process {led.pid} leads" in seen
        assert "slots" in seen
        assert "memory" in seen
        assert "AGENTS  2 of" in seen
        assert "api " in seen
        assert "ui " in seen
        assert "2 agents of the kind script are live, its limit" in seen
        assert "QUESTIONS  1 for you" in seen
        assert "start the task" in seen
        assert "run fleet" in seen
        assert "1 not due" not in seen  # asked, and fourth
        assert "2 not due" in seen


async def test_the_chosen_agent_is_frozen_and_thawed(fleet: Place, led: "subprocess.Popen[str]") -> None:  # noqa: ARG001
    async with screen(fleet) as shown:
        await shown.until("AGENTS  2 of")
        await shown.press("down", "f")
        await shown.until("Frozen ")
        await shown.until("held still by person:")
        (frozen,) = [agent for agent in fleet.run("agents", "--json").json if agent["shown_as"] == "frozen"]
        chosen = shown.app.query_one("#agents").lines.chosen  # pyright: ignore[reportAttributeAccessIssue]
        assert frozen["id"] == chosen
        await shown.press("a")
        assert "is frozen, and so is its screen" in shown.text()
        await shown.press("f")
        await shown.until("Thawed ")
    assert [agent["shown_as"] for agent in fleet.run("agents", "--json").json] == ["active", "active"]
    kinds = [line.split()[2] for line in fleet.run("events").out.splitlines()]
    assert {"agent.frozen", "agent.thawed"} <= set(kinds)


async def test_an_agent_is_stopped_when_that_is_said_twice(fleet: Place, led: "subprocess.Popen[str]") -> None:  # noqa: ARG001
    async with screen(fleet) as shown:
        await shown.until("AGENTS  2 of")
        await shown.press("x")
        assert isinstance(shown.app.screen, Confirm)
        await shown.press("n", "x", "escape")
        assert len(fleet.run("agents", "--json").json) == 2
        await shown.press("x", "y")
        await shown.until("Stopping ")
        assert "agent.stop_asked" in fleet.run("events").out


async def test_what_waits_is_answered(fleet: Place, led: "subprocess.Popen[str]") -> None:
    async with screen(fleet) as shown:
        await shown.until("QUESTIONS  1 for you")
        await shown.press("enter")
        assert "It asks nothing" in shown.text()
        await shown.press("tab", "enter")
        assert isinstance(shown.app.screen, Answer)
        assert "a allow   d deny" in shown.text()
        await shown.press("w", "d")  # always is no answer to it
        assert isinstance(shown.app.screen, Line)
        await shown.type("not now")
        await shown.until("Denied: asked: start the task")
        await shown.until("nothing waits for you")
        await shown.press("i")
        assert "Nothing waits for you." in shown.text()
    task = fleet.run("show", "asked", "--json").json
    assert (task["state"], task["failure"]["message"]) == ("rejected", "not now")
    assert led.poll() is None


async def test_a_line_is_said_to_those_who_hear(fleet: Place, led: "subprocess.Popen[str]") -> None:  # noqa: ARG001
    async with screen(fleet) as shown:
        await shown.until("AGENTS  2 of")
        await shown.press("s", "escape", "s")
        assert isinstance(shown.app.screen, Line)
        await shown.type("mind the commas")
        # A command has no conversation: what cannot be done says why.
        await shown.until("→")
    assert "mind the commas" not in fleet.run("events").out


async def test_everything_is_halted_and_goes_on(fleet: Place) -> None:
    async with screen(fleet) as shown:
        await shown.until("nobody leads")
        await shown.press("h", "n", "h", "y")
        await shown.until(" HALTED ")
        assert fleet.run("status", "--json").json["inbox"][0]["kind"] == "halt"
        await shown.press("h")
        assert "Let everything go on?" in shown.text()
        await shown.press("y")
        await shown.until("Everything goes on.")
        await shown.until(lambda: " HALTED " not in shown.text())
    assert fleet.run("status", "--json").json["inbox"] == []


async def test_attaching_runs_the_command(fleet: Place, led: "subprocess.Popen[str]") -> None:  # noqa: ARG001
    async with screen(fleet) as shown:
        await shown.until("AGENTS  2 of")
        await shown.press("a")
        # The screen of a test cannot be given away.
        assert "This terminal cannot be given away for a while: kapelle attach g-" in shown.text()
        assert shown.ran == []


async def test_a_word_filters_every_panel(fleet: Place, led: "subprocess.Popen[str]") -> None:  # noqa: ARG001
    async with screen(fleet) as shown:
        await shown.until("third")
        await shown.press("slash")
        await shown.type("API")
        seen = await shown.until("filter: API")
        assert "third" not in seen
        assert "nothing here has 'API' in it" in seen
        assert "api " in seen
        await shown.press("escape")
        assert "third" in shown.text()


async def test_help_says_what_the_keys_do(fleet: Place) -> None:
    async with screen(fleet) as shown:
        await shown.press("question_mark")
        assert isinstance(shown.app.screen, Help)
        assert "hold the chosen agent still" in shown.text()
        await shown.press("q")
        assert not isinstance(shown.app.screen, Help)
        await shown.press("q")
        assert shown.app._exit


def test_whoever_leaves_does_not_wait_for_a_store_that_is_held(fleet: Place) -> None:
    """Python itself would wait for the thread that asks, and that one for as long as SQLite is told to: a minute."""
    fleet.run("submit", "../flow.yml")
    mine, its = pty.openpty()
    argv = [sys.executable, "-m", "kapelle", "top"]
    env = {**fleet.environment, "TERM": "xterm-256color"}
    with closing(sqlite3.connect(fleet.home / "store.db", isolation_level=None)) as holder:
        with subprocess.Popen(argv, cwd=fleet.repository, env=env, stdin=its, stdout=its, stderr=its) as top:
            try:
                seen = reads(mine, b"third")
                holder.execute("BEGIN IMMEDIATE")
                os.write(mine, b"h")
                seen += reads(mine, b"Halt everything?")
                os.write(mine, b"y")
                # A key of its own: right behind the other it would go to a dialog that is being closed.
                seen += reads(mine, b"QUEUE")
                os.write(mine, b"q")
                seen = reads(mine, b"1 thing that you asked for has no answer yet")
                assert top.wait(timeout=30) == 1
            finally:
                top.kill()
        holder.execute("ROLLBACK")
    os.close(mine)
    os.close(its)
    assert "halt" not in {item["kind"] for item in fleet.run("status", "--json").json["inbox"]}


def reads(terminal: int, text: bytes) -> bytes:
    """Read from a terminal until *text* has come."""
    seen = b""
    while text not in seen:
        assert select.select([terminal], [], [], 30)[0], seen[-2000:]
        seen += os.read(terminal, 65536)
    return seen


async def test_a_key_before_anything_was_seen_says_so(fleet: Place) -> None:
    fleet.home.mkdir()
    (fleet.home / "store.db").write_bytes(b"this is no store at all" * 100)
    async with screen(fleet) as shown:
        await shown.until("trying again")
        for key in ("i", "f", "h"):
            shown.app.say("")
            assert "Nothing was seen yet" not in shown.text()
            await shown.press(key)
            await shown.until("Nothing was seen yet")
            assert len(shown.app.screen_stack) == 1


async def test_the_lines_of_the_help_stand_under_each_other(fleet: Place) -> None:
    async with screen(fleet, width=60, height=40) as shown:
        await shown.press("question_mark")
        lines = [line.split("│")[1] for line in shown.text().splitlines() if line.count("│") == 2]
        begin = next(line for line in lines if "hold the chosen" in line).index("hold")
        # Only the last line, with the keys of the help itself, begins further left.
        assert {line[:begin].strip() for line in lines[:-1]} >= {"a", "Tab", ""}
        assert all(len(line[:begin].strip()) <= len("Tab") for line in lines[:-1])


async def test_what_is_told_can_be_seen(fleet: Place, led: "subprocess.Popen[str]") -> None:  # noqa: ARG001
    """Who reads that an agent is frozen, and presses the key again at once, lets it go on."""
    async with screen(fleet) as shown:
        await shown.until("AGENTS  2 of")
        await shown.press("f")
        assert "held still by person:" in await shown.until("Frozen ")
        await shown.press("f")
        assert "held still by person:" not in await shown.until("Thawed ")


async def test_what_nobody_foresaw_ends_the_screen_and_is_told_once(fleet: Place, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise ValueError("a defect in a thread")

    async def break_it() -> None:
        async with screen(fleet) as shown:
            await shown.until("nobody leads")
            shown.app.acting.begin(broken)
            await shown.until(lambda: shown.app.defect is not None)

    with pytest.raises(ValueError, match="a defect in a thread"):
        await break_it()
    assert "defect" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("key", ["a", "f", "s", "x", "i", "enter", "tab", "down"])
async def test_no_key_does_harm_where_there_is_nothing(fleet: Place, key: str) -> None:
    async with screen(fleet, width=60, height=20) as shown:
        seen = await shown.until("nobody leads: kapelle resume")
        assert "no agent is at work" in seen
        await shown.press(key)
        assert len(shown.app.screen_stack) == 1
    assert not (fleet.home / "store.db").exists()


async def test_what_needs_a_leader_says_so_when_there_is_none(fleet: Place, led: "subprocess.Popen[str]") -> None:
    async with screen(fleet) as shown:
        await shown.until("AGENTS  2 of")
        led.kill()
        led.communicate()
        await shown.until("nobody leads")
        await shown.press("f")
        await shown.until("nobody leads, so nothing can be done about an agent → kapelle resume")


async def test_a_store_that_comes_and_leaders_that_change_are_seen(fleet: Place) -> None:
    async with screen(fleet) as shown:
        await shown.until("nobody leads")
        first = fleet.start("run", "../flow.yml")
        try:
            await shown.until(f"process {first.pid} leads")
            await shown.until("AGENTS  2 of")
        finally:
            first.kill()
            first.communicate()
        await shown.until("nobody leads")
        second = fleet.start("resume")
        try:
            await shown.until(f"process {second.pid} leads")
        finally:
            fleet.run("cancel", "fleet")
            second.communicate(timeout=60)


async def test_a_store_that_is_damaged_is_told_and_looked_at_again(fleet: Place) -> None:
    fleet.run("submit", "../flow.yml")
    whole = (fleet.home / "store.db").read_bytes()
    async with screen(fleet) as shown:
        await shown.until("third")
        (fleet.home / "other.db").write_bytes(b"this is no store at all" * 100)
        (fleet.home / "other.db").replace(fleet.home / "store.db")
        await shown.until("trying again")
        (fleet.home / "other.db").write_bytes(whole)
        (fleet.home / "other.db").replace(fleet.home / "store.db")
        await shown.until("nobody leads")


async def test_it_fits_into_every_size(fleet: Place, led: "subprocess.Popen[str]") -> None:  # noqa: ARG001
    async with screen(fleet) as shown:
        await shown.until("third")
        for width, height in ((60, 20), (200, 50), (30, 10), (100, 30)):
            await shown.resize(width, height)
            keys = keys_line(width).plain
            seen = await shown.until(lambda keys=keys: shown.text().splitlines()[-1] == keys)
            assert len(seen.splitlines()) <= height
            assert "AGENTS" in seen


def test_without_a_terminal_it_is_told_once(fleet: Place, led: "subprocess.Popen[str]") -> None:
    told = fleet.run("top")
    assert told.code == 0
    assert f"process {led.pid} leads" in told.out
    assert "AGENTS  2 of" in told.out
    assert "2 agents of the kind script are live, its limit" in told.out
    assert fleet.run("top", "--once").out.splitlines()[3] == told.out.splitlines()[3]
    found = fleet.run("top", "--json").json
    assert found["leader"]["pid"] == led.pid
    assert {agent["task"]["name"] for agent in found["agents"]} == {"api", "ui"}
    assert all(agent["alive"] for agent in found["agents"])
    assert [(task["name"], task["waits_for"]) for task in found["waiting"]] == [("third", "capacity")]
    assert [item["name"] for item in found["inbox"]] == ["asked"]
    assert found["runs"][0]["tasks"] == {"pending": 3, "running": 2}
    assert found["hosts"][0]["agents"] == 2


def test_a_place_where_nothing_was_ever_kept_stays_so(fleet: Place) -> None:
    assert "no agent is at work" in fleet.run("top").out
    assert fleet.run("top", "--json").json["agents"] == []
    assert not fleet.home.exists()
