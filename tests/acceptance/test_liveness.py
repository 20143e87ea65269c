"""Agents that get stuck, for real: the CLI stopped by a signal, in a loop, and with a model that says nothing more."""

import json
import os
import signal
from contextlib import suppress

import psutil
import pytest

from kapelle.testing.places import Place, until

WORKFLOW = """\
name: stuck
defaults: {agent: coder, gate: none}
tasks:
  one: {prompt: "Write one.txt"}
"""
IMPATIENT = {"KAPELLE_HEARTBEAT": "1s"}
PROJECT = """\
liveness: {stopped: 2s, stream: 3s, silence: 20s, between: 2s, repeats: 4, nudge_repeats: 5, break_repeats: 7}
"""
PLODDING = """\
rules:
  - when: {prompt: "broken off|started anew"}
    turns: [{tools: [{Write: {file_path: "{{ cwd }}/one.txt", content: "x\\n"}}]}, {say: "Wrote it."}]
  - when: {task: one}
    turns:
      # A tool in the middle of which the program is stopped by a signal.
      - tools: [{Bash: {command: "python3 -c 'import time; time.sleep(4)'"}}]
      - tools: [{Write: {file_path: "{{ cwd }}/one.txt", content: "x\\n"}}]
      - {say: "Wrote it."}
"""
LOOPING = """\
rules:
  - when: {task: one}
    turns:
TURNS      - tools: [{Write: {file_path: "{{ cwd }}/one.txt", content: "x\\n"}}]
      - {say: "Something else helped."}
"""
STALLED = """\
rules:
  - when: {task: one}
    turns:
      - {stall: 10m}
      - tools: [{Write: {file_path: "{{ cwd }}/one.txt", content: "x\\n"}}]
      - {say: "Wrote it."}
"""


@pytest.fixture
def stuck(place: Place) -> Place:
    place.write("workflow.yml", WORKFLOW)
    config = place.repository / ".kapelle" / "project.yml"
    config.write_text((config.read_text() if config.exists() else "") + PROJECT)
    return place


def events(place: Place) -> list[dict[str, object]]:
    return [json.loads(line) for line in place.run("events", "--json").out.splitlines()]


def kinds(place: Place) -> list[str]:
    return [str(event["kind"]) for event in events(place)]


def claude_of(place: Place) -> psutil.Process:
    """Return the process of the one agent's CLI."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mine = process.environ().get("KAPELLE_WORKSPACE", "").startswith(str(place.home))
            if mine and "claude" in process.cmdline()[0]:
                return process
    raise AssertionError("there is no agent")


def test_a_cli_that_is_stopped_by_a_signal_is_found_let_go_on_and_completes(stuck: Place) -> None:
    stuck.write("rehearsal.yml", PLODDING)
    leader = stuck.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", env=IMPATIENT)
    until(leader, "python3 -c")
    os.kill(claude_of(stuck).pid, signal.SIGSTOP)

    said = leader.communicate()[0]

    assert leader.returncode == 0, said
    found = kinds(stuck)
    assert found.count("agent.noted") == 1
    assert found.count("agent.probed") == 1
    assert "agent.recovered" in found
    assert not {"agent.interrupted", "agent.restarted"} & set(found)
    noted = next(event for event in events(stuck) if event["kind"] == "agent.noted")
    assert noted["condition"] == "blocked"
    assert "stopped by a signal" in str(noted["evidence"])
    assert found.count("attempt.started") == 1
    assert stuck.processes() == []


def test_an_agent_in_a_loop_is_told_then_broken_off_and_goes_another_way(stuck: Place) -> None:
    turn = '      - tools: [{Bash: {command: "cat no-such-file"}}]\n        delay: 300ms\n'
    stuck.write("rehearsal.yml", LOOPING.replace("TURNS", turn * 10))

    said = stuck.run("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", env=IMPATIENT)

    assert said.code == 0, said.out + said.err
    found = kinds(stuck)
    graded = [kind for kind in found if kind in {"agent.noted", "agent.nudged", "agent.interrupted", "agent.restarted"}]
    assert graded == ["agent.noted", "agent.nudged", "agent.interrupted"]
    assert {str(event["condition"]) for event in events(stuck) if event["kind"] in graded} == {"looping"}
    assert found.count("attempt.started") == 1
    # In the same process: nothing was started anew.
    assert found.count("agent.deployed") == 1
    assert "one.txt" in stuck.git("ls-tree", "--name-only", "main").splitlines()
    assert stuck.processes() == []


@pytest.mark.soak
def test_a_model_that_says_nothing_more_is_asked_anew(stuck: Place) -> None:
    stuck.write("rehearsal.yml", STALLED)

    said = stuck.run("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", env=IMPATIENT)

    assert said.code == 0, said.out + said.err
    found = kinds(stuck)
    assert {"agent.noted", "agent.probed", "agent.interrupted"} <= set(found)
    assert {str(event["condition"]) for event in events(stuck) if event["kind"] == "agent.interrupted"} == {"stalled_stream"}
    assert found.count("attempt.started") == 1
    assert "one.txt" in stuck.git("ls-tree", "--name-only", "main").splitlines()
    assert stuck.processes() == []
