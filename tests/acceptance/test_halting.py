"""The off switch and the working hours, with real agents."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from kapelle.testing.places import Place, until

WORKFLOW = """\
name: quiet
defaults: {agent: coder, gate: none, max_attempts: 1}
tasks:
  tool: {prompt: "Use a tool that takes its time"}
  model: {prompt: "Wait for the model"}
"""
AGENTS = ("tool", "model")
REHEARSAL = """\
rules:
  - when: {task: tool, prompt: "takes its time"}
    turns:
      # A tool in the middle of which everything is halted; it is broken off, not waited for.
      - tools: [{Bash: {command: "echo 1 > tool.txt; python3 -c 'import time; time.sleep(40)'"}}]
      - {say: "Done."}
  - when: {task: model, prompt: "Wait for"}
    turns:
      - tools: [{Bash: {command: "echo 1 > model.txt"}}]
      - {stall: 40s}
      - {say: "Done."}
"""


@pytest.fixture
def running(place: Place) -> Iterator["subprocess.Popen[str]"]:
    """Two agents at work: one in a tool, one waits for its model."""
    place.write("workflow.yml", WORKFLOW)
    place.write("rehearsal.yml", REHEARSAL)
    process = place.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml")
    try:
        until(process, "Bash")
        until(process, "Bash")
        # A tool that was called has not begun yet: what is broken off now would never have written anything.
        while len([*place.home.glob("workspaces/*/tool.txt"), *place.home.glob("workspaces/*/model.txt")]) < len(AGENTS):
            assert process.poll() is None
            place.run("status")
        yield process
    finally:
        process.terminate()
        process.communicate()


def test_a_halt_stops_agents_in_the_middle_of_their_turn_and_they_go_on_afterwards(
    place: Place, running: "subprocess.Popen[str]"
) -> None:
    assert place.run("halt", "--reason", "the bill").out == "Halted: nothing calls a model until `kapelle unhalt`.\n"
    until(running, "waits for paused")
    until(running, "waits for paused")
    said = place.run("status").out
    assert said.startswith(" HALTED  halted by person:")
    assert "(the bill): kapelle unhalt" in said
    (item,) = place.run("inbox", "--json").json
    assert (item["kind"], item["answers"], item["otherwise"]) == ("halt", [], "kapelle unhalt")
    assert "kapelle unhalt" in place.run("answer", item["id"], "allow").err
    assert "halted by person:" in place.run("explain", "tool").out
    assert any(found["area"] == "halt" for found in place.run("doctor", "--json").json["findings"])
    assert "everything is halted already" in place.run("halt").err
    stopped = place.start("events", "--follow", "--json")
    until(stopped, '"agent.stopped"')
    until(stopped, '"agent.stopped"')
    stopped.terminate()
    stopped.communicate()
    calls = len(place.run("usage", "--json", "--by", "task").json["lines"])

    assert place.run("unhalt").code == 0

    rest, _ = running.communicate(timeout=120)
    assert running.returncode == 0, rest
    assert calls <= 2
    tasks = {task["name"]: task for task in place.run("show", "quiet", "--json").json["tasks"]}
    assert {name: (task["state"], task["attempts"]) for name, task in tasks.items()} == {
        "tool": ("completed", 1),
        "model": ("completed", 1),
    }
    assert {"tool.txt", "model.txt"} <= set(place.git("ls-tree", "--name-only", "main").split())
    kinds = [json.loads(line)["kind"] for line in place.run("events", "--json").out.splitlines()]
    assert kinds.count("attempt.started") == 2
    assert kinds.count("agent.deployed") == 4
    assert "nothing is halted" in place.run("unhalt").err


def test_outside_of_the_hours_nothing_begins_and_it_is_told_when(place: Place) -> None:
    project = place.repository / ".kapelle" / "project.yml"
    text = project.read_text(encoding="utf-8")
    # An hour that is not now, whenever this is run: the one that begins in six hours.
    hour = (int(place.git("log", "-1", "--date=format-local:%H", "--format=%cd")) + 6) % 24
    project.write_text(f'{text}\nworking_hours: ["daily {hour:02d}:00-{hour:02d}:59"]\ntime_zone: UTC\n', encoding="utf-8")
    place.git("commit", "-q", "-am", "hours")
    place.write("workflow.yml", WORKFLOW)
    place.write("rehearsal.yml", REHEARSAL)
    process = place.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml")
    try:
        until(process, "waits for schedule: outside of the working hours until ")
        said = place.run("explain", "tool").out
        assert "outside of the working hours until" in said
        told = " ".join(place.run("status").out.split())
        assert "waits: outside of the working hours until" in told
        assert "outside of the working hours until" in place.run("status", "--json").json["runs"][0]["closed"]
    finally:
        process.terminate()
        process.communicate()
