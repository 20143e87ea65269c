"""A person takes a real conversation over on the real CLI's own screen, in a real terminal, and hands it back.

With KAPELLE_SCREENS set, the screens are written to docs/explain/screens/, to be read there.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen, run
from typing import Any

import pytest

from kapelle.testing.multiplexer import Window, window
from kapelle.testing.places import Place, make_repository, until

SCREENS = Path(__file__).parents[2] / "docs" / "explain" / "screens"
AGENTS = "agents: {coder: {program: PROGRAM, sandbox: SANDBOX, tools: {allow: [Bash]}MORE}}\n"
WORKFLOW = """\
name: shop
defaults: {agent: coder, gate: none}
tasks: {greet: {prompt: "Write hello.txt"}}
"""
REHEARSAL = """\
rules:
  - when: {prompt: "^Write hello"}
    turns:
      # A tool in the middle of which a person takes over; it is broken off, not waited for.
      - {say: "I look around first.", tools: [{Bash: {command: "python3 -c 'import time; time.sleep(600)'"}}]}
  - when: {prompt: "A person had taken"}
    turns:
      - {say: "I go on where you left.", tools: [{Bash: {command: "echo 'hello from the agent' >> hello.txt"}}]}
      - {say: "hello.txt greets from both of us."}
  - when: {prompt: "Begin with"}
    turns:
      - {say: "As you say.", tools: [{Bash: {command: "echo 'hello from a person' > hello.txt"}}]}
      - {say: "hello.txt has your line."}
otherwise: {say: "Nothing to do."}
"""


def a_place(folder: Path, *, program: str = "claude", sandbox: str = "process", more: str = "") -> Place:
    configured = folder / "shop" / ".kapelle"
    configured.mkdir(parents=True)
    (configured / "agents.yml").write_text(AGENTS.replace("PROGRAM", program).replace("SANDBOX", sandbox).replace("MORE", more))
    place = Place(repository=make_repository(folder / "shop"), home=folder / "state")
    place.write("flow.yml", WORKFLOW)
    place.write("said.yml", REHEARSAL)
    return place


@pytest.fixture
def leader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Place, "Popen[str]"]]:
    given = getattr(request, "param", {})
    request.getfixturevalue("program")("tmux")
    if given.get("sandbox") == "bubblewrap":
        request.getfixturevalue("bubblewrap")
    place = a_place(tmp_path, **given)
    process = place.start("run", "../flow.yml", "--rehearse", "../said.yml")
    try:
        until(process, "Bash python3")
        yield place, process
    finally:
        place.run("cancel", "shop")
        process.communicate(timeout=60)


def keep(name: str, shown: str) -> None:
    """Write a screen down as text, with nothing in it that is this machine's or this hour's."""
    if "KAPELLE_SCREENS" not in os.environ:
        return
    SCREENS.mkdir(parents=True, exist_ok=True)
    shown = re.sub(r"\S*/workspaces/greet-w-\S*", "~/.local/state/kapelle/workspaces/greet-w-7f3k9q2mxw4d", shown)
    shown = re.sub(r"\b([rtgaw])-[0-9a-z]{12}\b", r"\1-7f3k9q2mxw4d", shown)
    shown = re.sub(r"person:\w+", "person:you", shown)
    shown = re.sub(r"\d\d:\d\d:\d\d", "12:00:00", shown)
    shown = re.sub(r"[A-Z][a-z]+ for \d+s · done [0-9: AP]+M", "Worked for 1s · done 12:00 PM", shown)
    (SCREENS / f"{name}.txt").write_text(shown + "\n", encoding="utf-8")


def at_the_screen(place: Place, folder: Path, *arguments: str) -> AbstractContextManager[Window]:
    return window(folder, sys.executable, "-m", "kapelle", *arguments, cwd=place.repository, env=place.environment)


AS_IT_WAS = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{keypad_cursor_flag} #{keypad_flag}"
"""What tmux knows of a terminal that a program on the whole screen has changed."""


def in_a_shell(place: Place, folder: Path, *arguments: str) -> AbstractContextManager[Window]:
    """Open a window in which a command runs as in a person's shell, which says how it finds the terminal then."""
    command = " ".join([sys.executable, "-m", "kapelle", *arguments])
    told = f"stty -a > {folder}/before; {command}; stty -a > {folder}/after; echo AFTERWARDS; sleep 600"
    return window(folder, "sh", "-c", told, cwd=place.repository, env=place.environment)


def as_it_was(mine: Window, folder: Path) -> str:
    """See that the terminal is as it was, and return what is on its screen."""
    seen = mine.until("AFTERWARDS")
    assert mine.do("display-message", "-p", "-t", "window", AS_IT_WAS).strip() == "0 1 0 0 0"
    assert (folder / "after").read_text() == (folder / "before").read_text()
    assert "Claude Code" not in seen
    return seen


def events(place: Place) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.run("events", "--json").out.splitlines()]


def nothing_left(place: Place) -> None:
    assert place.processes() == []
    assert [path for path in place.home.rglob("tmux") if path.is_socket()] == []


@pytest.mark.parametrize("leader", [{"sandbox": "process"}, {"sandbox": "bubblewrap"}], indirect=True)
def test_a_person_takes_over_and_hands_back(leader: tuple[Place, "Popen[str]"], tmp_path: Path) -> None:
    place, process = leader
    with at_the_screen(place, tmp_path / "mine", "takeover", "greet") as mine:
        seen = mine.until("Claude Code", "Write hello.txt")
        keep("1-taken-over", seen)
        listed = place.run("agents")
        assert "taken over" in listed.out
        keep("2-agents", listed.out.rstrip())
        mine.type("Begin with a line from me")
        keep("3-at-work", mine.until("hello.txt has your line."))
        mine.type("/exit")
        keep("4-handed-back", mine.until("Handed greet back."))
    told = until(process, "run completed")
    assert "handed back by person:" in told
    assert place.git("show", "main:hello.txt") == "hello from a person\nhello from the agent"
    logged = place.run("logs", "greet").out
    keep("5-the-run", logged.rstrip())
    assert re.search(r"person:\w+ at its screen: Begin with a line from me\n", logged), logged
    assert "| As you say." in logged
    assert "ede_diagnostic" not in logged
    # Its agent is on its way out until the leader has ended.
    assert process.wait(timeout=60) == 0
    # What was spent on the person's screen is counted like everything else.
    agents = place.run("agents", "--all", "--json").json
    assert [(entry["by_hand"], entry["model_calls"] > 0) for entry in agents] == [(False, True), (True, True), (False, True)]
    nothing_left(place)


def test_a_takeover_outlives_its_leader_and_ends_with_the_persons_terminal(
    leader: tuple[Place, "Popen[str]"], tmp_path: Path
) -> None:
    place, process = leader
    with at_the_screen(place, tmp_path / "mine", "takeover", "greet") as mine:
        mine.until("Claude Code", "Write hello.txt")
        process.kill()
        process.communicate()
        successor = place.start("resume")
        mine.type("Begin with a line from me")
        mine.until("hello.txt has your line.")
    # The terminal is gone, and everything in it with it.
    until(successor, "handed back by person:")
    until(successor, "run completed")
    assert successor.wait(timeout=60) == 0
    successor.communicate()
    assert place.git("show", "main:hello.txt") == "hello from a person\nhello from the agent"
    nothing_left(place)


def test_a_screen_that_the_next_leader_closes_leaves_the_terminal_as_it_was(
    leader: tuple[Place, "Popen[str]"], tmp_path: Path
) -> None:
    place, process = leader
    with in_a_shell(place, tmp_path / "mine", "takeover", "greet") as mine:
        mine.until("Claude Code", "Write hello.txt")
        process.kill()
        process.communicate()
        told = place.run("handback", "greet")
        assert "Nobody leads just now" in told.out
        successor = place.start("resume")
        seen = as_it_was(mine, tmp_path / "mine")
    assert "Handed greet back. It goes on" in seen
    assert "unexpectedly" not in seen
    until(successor, "run completed")
    successor.communicate(timeout=60)
    nothing_left(place)


def test_a_screen_that_was_killed_leaves_the_terminal_as_it_was(leader: tuple[Place, "Popen[str]"], tmp_path: Path) -> None:
    place, _ = leader
    with in_a_shell(place, tmp_path / "mine", "takeover", "greet") as mine:
        mine.until("Claude Code", "Write hello.txt")
        socket = next(path for path in place.home.rglob("tmux") if path.is_socket())
        asked = ["tmux", "-S", "tmux", "display-message", "-p", "#{pid}"]
        number = run(asked, cwd=socket.parent, check=True, capture_output=True, text=True).stdout
        os.kill(int(number), signal.SIGKILL)
        seen = as_it_was(mine, tmp_path / "mine")
    assert "Handed greet back. It goes on" in seen


@pytest.mark.soak
def test_who_is_at_the_screen_is_told_of_a_halt(leader: tuple[Place, "Popen[str]"], tmp_path: Path) -> None:
    place, _ = leader
    with in_a_shell(place, tmp_path / "mine", "takeover", "greet") as mine:
        mine.until("Claude Code", "Write hello.txt")
        assert place.run("halt", "--reason", "lunch").code == 0
        seen = as_it_was(mine, tmp_path / "mine")
    assert "It does not go on yet: halted by person:" in seen
    assert "(lunch): kapelle unhalt" in seen.replace("\n", "")


@pytest.mark.parametrize("leader", [{"more": ", terminal: tmux"}], indirect=True)
def test_who_looks_at_an_agent_that_ends_is_told_so(leader: tuple[Place, "Popen[str]"], tmp_path: Path) -> None:
    place, process = leader
    with in_a_shell(place, tmp_path / "mine", "attach", "greet") as mine:
        mine.until("Ctrl-b d leaves", "I look around first.")
        assert place.run("stop", "greet", "--now").code == 0
        seen = as_it_was(mine, tmp_path / "mine")
    assert "The agent of greet has ended" in seen
    until(process, "waits for paused")


@pytest.mark.parametrize(
    "leader", [{"program": "claude-tui"}, {"program": "claude-tui", "sandbox": "bubblewrap"}], indirect=True
)
def test_the_screen_of_an_agent_can_be_looked_at_and_typed_at(leader: tuple[Place, "Popen[str]"], tmp_path: Path) -> None:
    place, process = leader
    with at_the_screen(place, tmp_path / "mine", "attach", "greet") as mine:
        keep("6-attached", mine.until("Write hello.txt", "I look around first."))
        # Who only looks on breaks nothing off.
        mine.keys("Escape")
        with at_the_screen(place, tmp_path / "typing", "attach", "greet", "--write") as typing:
            typing.until("I look around first.")
            assert place.run("agents", "--json").json[0]["state"] == "active"
            typing.keys("Escape")
            typing.until("Interrupted")
    # The turn was broken off by hand: the conversation is gone on with.
    until(process, "waits for retry")


def test_without_a_terminal_what_it_says_is_followed_and_it_is_handed_back_from_elsewhere(
    leader: tuple[Place, "Popen[str]"], tmp_path: Path
) -> None:
    place, process = leader
    with at_the_screen(place, tmp_path / "mine", "attach", "greet") as mine:
        mine.until("has no terminal", "I look around first.")
    with at_the_screen(place, tmp_path / "typing", "attach", "greet", "--write") as typing:
        typing.until("I look around first.")
        # In the order in which it was typed, however fast.
        typing.keys("-l", "and mind the commas\nand the dots\nand the hyphens\n")
        typing.until("agent (19 characters)", "agent (12 characters)", "agent (15 characters)")
    refused = place.run("attach", "greet", "--write")
    assert (refused.code, "needs a terminal" in refused.err) == (2, True)
    nobody = place.run("takeover", "greet")
    assert (nobody.code, "needs a terminal" in nobody.err) == (2, True)

    with at_the_screen(place, tmp_path / "over", "takeover", "greet") as mine:
        mine.until("Claude Code", "Write hello.txt")
        with at_the_screen(place, tmp_path / "other", "takeover", "greet") as other:
            other.until("Claude Code", "Write hello.txt")
            other.keys("C-b", "d")
            other.until("Left greet.")
        assert "a person has taken it over" in place.run("status").out
        assert place.run("handback", "greet").code == 0
        mine.until("Handed greet back.")
    until(process, "run completed")
    assert place.git("show", "main:hello.txt") == "hello from the agent"
    assert process.wait(timeout=60) == 0
    asked = [event["text"] for event in events(place) if event["kind"] == "prompt.sent" and event["sender"]]
    assert asked == ["and mind the commas", "and the dots", "and the hyphens"]
    nothing_left(place)


@pytest.mark.parametrize("leader", [{"more": ", terminal: tmux"}], indirect=True)
def test_an_agent_with_a_terminal_is_seen_there_and_spoken_to(leader: tuple[Place, "Popen[str]"], tmp_path: Path) -> None:
    place, process = leader
    with at_the_screen(place, tmp_path / "mine", "attach", "greet") as mine:
        mine.until("I look around first.")
        keep("7-transcript", mine.until("Ctrl-b d leaves"))
        # They share what they see, and not everybody may type.
        mine.until("With `attach --write` a line that you type is said")
        mine.keys("nobody hears this", "Enter")
        with at_the_screen(place, tmp_path / "typing", "attach", "greet", "--write") as typing:
            typing.until("I look around first.")
            typing.type("and mind the commas")
            assert "nobody hears" not in mine.until("has something to say to its agent (19 characters)")
    assert place.run("stop", "greet", "--now").code == 0
    until(process, "waits for paused")
    nothing_left(place)
