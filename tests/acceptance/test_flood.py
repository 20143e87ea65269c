"""An agent that opens connections as fast as it can, in several processes: whoever leads goes on, and says what was refused."""

import json
import resource

import pytest

from kapelle.testing.places import Place

FLOODS = """\
import multiprocessing, socket, time

def flood(until):
    held = []
    while time.monotonic() < until:
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(1)
        try:
            stream.connect("/run/kapelle-ways/proxy")
            held.append(stream)
        except OSError:
            held = held[-50:]
    return len(held)

with multiprocessing.Pool(6) as pool:
    pool.map(flood, [time.monotonic() + 5] * 6)
open("flooded.txt", "w").write("done")
"""
AGENTS = """\
sandbox: bubblewrap
network: model-only
agents: {script: {program: command}}
"""
FLOW = """\
name: flooding
defaults: {agent: script, gate: none, max_attempts: 1}
tasks:
  floods: {prompt: python3 floods.py}
  works: {prompt: "echo 1 > works.txt; ulimit -S -n"}
  later: {prompt: "echo 1 > later.txt", needs: [works]}
"""


@pytest.mark.usefixtures("bubblewrap")
def test_whoever_leads_outlives_an_agent_that_connects_again_and_again(place: Place) -> None:
    (place.repository / "floods.py").write_text(FLOODS)
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS)
    place.git("add", "-A")
    place.git("commit", "-qm", "floods")
    place.write("flow.yml", FLOW)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        # In a process that starts with this bound.
        answer = place.run("run", "../flow.yml", env={"PYTHONUTF8": "1"})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert answer.code == 0, answer.out + answer.err
    told = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    refused = [event for event in told if event["kind"] == "network.denied"]
    assert {event["reason"] for event in refused} == {"it had 96 connections open at once, and more there may not be"}
    # However often: once when it began, and once with all of them.
    assert [event["times"] > 1 for event in refused] == [False, True]
    # What is started is not to look at each number that a file of whoever leads could have.
    assert "512" in [event["text"] for event in told if event["kind"] == "agent.said"]
