"""Fifty real agents at once on whatever machine this is: all come to their end, and nobody takes one for stuck. `make soak`.

`KAPELLE_SOAK_AGENTS` says how many. What each costs the machine is printed; docs/explain/liveness.md has figures.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from kapelle.testing.places import Place

AGENTS = int(os.environ.get("KAPELLE_SOAK_AGENTS", "50"))
PATIENCE = 900.0
"""Seconds until it must have ended."""
ANSWERS = {"agent.probed", "agent.nudged", "agent.interrupted", "agent.restarted", "agent.given_up"}
WORKFLOW = """\
name: fifty
defaults: {agent: coder, gate: none}
tasks:
  one: {foreach: NUMBERS, prompt: "Write {{ item }}.txt"}
"""
# Silence of several kinds, all of them long enough that fifty have started before the first is done.
REHEARSAL = """\
rules:
  - when: {task: "*"}
    turns:
      - tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "x\\n"}}]
      # A tool that takes its time and says nothing, so that all of them are at work at once.
      - tools: [{Bash: {command: "python3 -c 'import time; time.sleep(75)'", timeout: 600000}}]
        delay: 20s
      - {say: "This answer comes slowly, letter by letter, and takes its time all the same.", drip: 3s}
"""


def of_agents(place: Place) -> tuple[list[psutil.Process], int]:
    """Return the processes of all agents (the CLI of each, and what it has started), and how many CLIs there are."""
    found: list[psutil.Process] = []
    agents = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error, IndexError):
            if process.environ().get("KAPELLE_WORKSPACE", "").startswith(str(place.home)):
                found.append(process)
                agents += "claude" in process.cmdline()[0]
    return found, agents


def used_by(processes: list[psutil.Process]) -> float:
    """Return how many seconds of CPU time *processes* have used."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def memory(processes: list[psutil.Process]) -> int:
    """Return what *processes* have in memory, what they share counted once."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def watched(place: Place, leader: "subprocess.Popen[str]") -> tuple[int, int, float, float]:
    """Look on until *leader* ends.

    Returned is how many agents there were at most, their memory and their CPU time then, and the leader's CPU time.
    """
    most, used, worked, cpu = 0, 0, 0.0, 0.0
    until = time.monotonic() + PATIENCE
    while leader.poll() is None:
        assert time.monotonic() < until, "it does not come to its end"
        with suppress(psutil.Error):
            times = psutil.Process(leader.pid).cpu_times()
            cpu = times.user + times.system
        there, agents = of_agents(place)
        if agents > most:
            most, used, worked = agents, memory(there), used_by(there)
        with suppress(subprocess.TimeoutExpired):
            leader.wait(2)
    return most, used, worked, cpu


@pytest.mark.soak
def test_fifty_agents_at_once_end_without_a_false_alarm(place: Place) -> None:
    place.write("workflow.yml", WORKFLOW.replace("NUMBERS", json.dumps(list(range(AGENTS)))))
    place.write("rehearsal.yml", REHEARSAL)
    settings = {"KAPELLE_SLOTS": str(AGENTS), "KAPELLE_KEEP_FREE": "100MB", "KAPELLE_SANDBOX": "process"}
    begun = time.monotonic()
    with (place.home.parent / "said.log").open("w") as said:
        leader = subprocess.Popen(
            [sys.executable, "-m", "kapelle", "run", "../workflow.yml", "--rehearse", "../rehearsal.yml"],
            cwd=place.repository,
            env={**place.environment, **settings},
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            most, used, worked, cpu = watched(place, leader)
        finally:
            if leader.poll() is None:
                leader.terminate()
                leader.wait()
    seconds = time.monotonic() - begun
    told = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    kinds = [event["kind"] for event in told]
    noted = [event for event in told if event["kind"] == "agent.noted"]
    summary = place.run("report", "--json").json
    print(  # noqa: T201  # what is measured is what this test is for
        f"\n{AGENTS} agents, {most} at once: {seconds:.0f} s, {used / most / 1e6:.0f} MB of memory "
        f"and {worked / most:.1f} s of CPU each by then, "
        f"leader {cpu:.1f} s of CPU ({cpu / seconds:.1%} of one), {len(noted)} noted, "
        f"median task {summary['task_s']['median']:.0f} s, load {statistics.mean(os.getloadavg()):.1f}"
    )
    assert leader.returncode == 0, (place.home.parent / "said.log").read_text()[-3000:]
    assert most >= 0.9 * AGENTS, "they were not there at once"
    assert ANSWERS & set(kinds) == set()
    assert kinds.count("task.completed") == AGENTS
    assert kinds.count("attempt.started") == AGENTS
    assert place.processes() == []
