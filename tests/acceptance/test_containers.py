"""Containers that outlive the leader, or lose their runner: adopted, ended and cleared away, through the real CLI."""

import json
import sys
from contextlib import suppress

import psutil
import pytest

from kapelle.adapters.sandboxes.container import runner as container_runner
from kapelle.adapters.sandboxes.container.runner import Api
from kapelle.testing.places import Place, until

RUNNER = container_runner.__file__
WORKFLOW = """\
name: slow
defaults: {agent: coder, gate: none}
tasks: {one: {prompt: "Write one.txt"}}
"""
REHEARSAL = """\
rules:
  # A tool that takes its time, so that there is a middle of the turn in which to kill.
  - when: {task: "*"}
    turns:
      - tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "x\\n"}}]
      - tools: [{Bash: {command: "python3 -c 'import time; time.sleep(1)'"}}]
        delay: 500ms
      - {say: "Wrote {{ task }}.txt.", delay: 500ms}
"""


@pytest.fixture
def slow(place: Place, runtime: str) -> Place:  # noqa: ARG001  # it is there
    place.write("workflow.yml", WORKFLOW)
    place.write("rehearsal.yml", REHEARSAL)
    agents = place.repository / ".kapelle" / "agents.yml"
    agents.write_text(f"sandbox: container\n{agents.read_text()}")
    return place


def runners(place: Place) -> list[psutil.Process]:
    """Return the processes that stand for the containers of a place."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            # The shim has it all in its own command line, too.
            if command[:1] == [sys.executable] and RUNNER in command and command[-1].startswith(str(place.home)):
                found.append(process)
    return found


def containers(runtime: str) -> list[str]:
    there = Api(runtime.removeprefix("unix://")).ask("GET", "/containers/json?all=1")[1]
    return [each["Names"][0] for each in there]


def check_all_is_there(place: Place, runtime: str) -> list[dict[str, object]]:
    assert place.run("list", "--json").json[0]["state"] == "completed"
    assert place.git("show", "main:one.txt") == "x"
    assert place.processes() == []
    assert runners(place) == []
    assert containers(runtime) == []
    return [json.loads(line) for line in place.run("events", "--json").out.splitlines()]


def test_after_kill_9_of_the_leader_a_container_is_adopted(slow: Place, runtime: str) -> None:
    leader = slow.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml")
    until(leader, "Write one.txt")
    leader.kill()
    leader.communicate()
    assert len(containers(runtime)) == 1

    resumed = slow.run("resume")

    assert resumed.code == 0, resumed.out + resumed.err
    told = check_all_is_there(slow, runtime)
    kinds = [event["kind"] for event in told]
    assert "agent.adopted" in kinds
    # Nothing of it was ended, and nothing took its place.
    assert "agent.reaped" not in kinds
    assert kinds.count("agent.deployed") == 1
    assert "code 143" not in resumed.out + slow.run("events").out
    assert [event["number"] for event in told if event["kind"] == "attempt.started"] == [1]
    assert [event["tool"] for event in told if event["kind"] == "agent.used_tool"] == ["Write", "Bash"]


@pytest.mark.soak
def test_after_kill_9_of_leader_and_runner_nothing_is_left(slow: Place, runtime: str) -> None:
    leader = slow.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml")
    # It has its file: a rehearsed agent does not look whether what was cut off was done.
    until(leader, "python3 -c")
    (runner,) = runners(slow)
    leader.kill()
    runner.kill()
    leader.communicate()

    resumed = slow.run("resume")

    assert resumed.code == 0, resumed.out + resumed.err
    check_all_is_there(slow, runtime)
