"""Interrupted, killed, resumed: nothing is lost, nothing is done twice, nothing is left running."""

import json
import signal

import pytest

from kapelle.testing.places import Place, until

WORKFLOW = """\
name: slow
defaults: {agent: coder, gate: python}
tasks:
  one: {prompt: "Write one.txt"}
  two: {prompt: "Write two.txt"}
  three: {needs: [one, two], prompt: "Write three.txt"}
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
def slow(place: Place) -> Place:
    place.write("workflow.yml", WORKFLOW)
    place.write("rehearsal.yml", REHEARSAL)
    return place


def events(place: Place) -> list[dict[str, object]]:
    return [json.loads(line) for line in place.run("events", "--json").out.splitlines()]


def check_all_is_there(place: Place) -> None:
    report = place.run("list", "--json").json[0]
    assert report["state"] == "completed"
    assert {"one.txt", "two.txt", "three.txt"} <= set(place.git("ls-tree", "--name-only", "main").splitlines())
    subjects = place.git("log", "--first-parent", "--format=%s", "main").splitlines()
    merged = " ".join(line.removesuffix(" into main") for line in subjects if line.startswith("Merge")).split()
    # Those that were ready at the same time may be merged together.
    assert [merged.count(name) for name in ("one", "two", "three")] == [1, 1, 1]
    kinds = [(event["kind"], event["task_id"]) for event in events(place)]
    assert all(kinds.count((kind, task)) == 1 for kind, task in kinds if kind in {"task.completed", "change.merged"})
    assert place.processes() == []
    assert list((place.home / "workspaces").iterdir()) == []


@pytest.mark.soak
def test_after_kill_9_of_the_leader_live_agents_are_adopted_and_all_is_merged_once(slow: Place) -> None:
    leader = slow.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml")
    until(leader, "Write one.txt")
    leader.kill()
    leader.communicate()

    resumed = slow.run("resume")

    assert resumed.code == 0, resumed.out + resumed.err
    check_all_is_there(slow)
    told = events(slow)
    adopted = [event for event in told if event["kind"] == "agent.adopted"]
    assert adopted
    # No prompt was answered twice, and no attempt was begun anew.
    assert [event["number"] for event in told if event["kind"] == "attempt.started"] == [1, 1, 1]


def test_ctrl_c_lets_agents_finish_their_turn_and_says_how_to_go_on(slow: Place) -> None:
    leader = slow.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml")
    until(leader, "Write one.txt")
    leader.send_signal(signal.SIGINT)
    said = leader.communicate()[0]

    assert leader.returncode == 3
    assert "kapelle resume r-" in said
    assert slow.processes() == []
    assert "nobody leads" in slow.run("status").out

    assert slow.run("resume").code == 0
    check_all_is_there(slow)


@pytest.mark.soak
def test_a_second_ctrl_c_stops_now_and_counts_as_no_crash(slow: Place) -> None:
    leader = slow.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml")
    # Both have their files: a rehearsed agent does not look whether what was cut off was done.
    until(leader, "python3 -c")
    until(leader, "python3 -c")
    leader.send_signal(signal.SIGINT)
    until(leader, "Ctrl-C again stops now")
    leader.send_signal(signal.SIGINT)
    leader.communicate()

    assert leader.returncode == 3
    assert slow.processes() == []
    assert slow.run("resume").code == 0
    check_all_is_there(slow)
    assert not [event for event in events(slow) if event["kind"] == "attempt.ended" and event["outcome"] != "succeeded"]


@pytest.mark.soak
def test_a_follower_takes_over_when_the_leader_dies(slow: Place) -> None:
    leader = slow.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml")
    until(leader, "Write one.txt")
    follower = slow.start("resume")
    until(follower, "goes on")
    leader.kill()
    leader.communicate()

    said = follower.communicate()[0]

    assert follower.returncode == 0, said
    check_all_is_there(slow)


@pytest.mark.soak
def test_a_second_run_submits_and_follows(slow: Place) -> None:
    slow.write("other.yml", "name: other\ntasks: {four: {agent: script, gate: none, prompt: 'echo 4 > four.txt'}}\n")
    leader = slow.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml")
    until(leader, "Write one.txt")

    second = slow.run("run", "../other.yml")

    assert second.code == 0, second.out + second.err
    leader.communicate()
    assert leader.returncode == 0
    assert "four.txt" in slow.git("ls-tree", "--name-only", "main").splitlines()


def test_what_an_agent_left_running_is_ended_with_the_run(place: Place) -> None:
    """It left the group of its agent, as servers do that are started for good."""
    prompt = "echo 1 > one.txt; setsid sleep 300 > /dev/null 2>&1 & sleep 0.1"
    place.write("workflow.yml", f"name: left\ntasks: {{one: {{agent: script, gate: none, prompt: '{prompt}'}}}}\n")

    answer = place.run("run", "../workflow.yml")

    assert answer.code == 0, answer.out + answer.err
    assert place.processes() == []


CRASH = """\
import os, pathlib, signal
marker = pathlib.Path(os.environ["CRASHED"])
pid = os.getpid()
while not marker.exists() and pid > 1:
    pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    if "claude" in pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\\0")[0]:
        marker.touch()
        os.kill(pid, signal.SIGKILL)
"""


def test_a_crashed_agent_goes_on_in_its_conversation(place: Place) -> None:
    marker = place.home.parent / "crashed"
    (place.repository / "crash.py").write_text(CRASH, encoding="utf-8")
    agents = (place.repository / ".kapelle" / "agents.yml").read_text(encoding="utf-8")
    # It leaves its mark outside.
    own = f"    sandbox: process\n    env: {{CRASHED: {marker}}}\n"
    agents = agents.replace("    program: claude\n", f"    program: claude\n{own}", 1)
    (place.repository / ".kapelle" / "agents.yml").write_text(agents, encoding="utf-8")
    place.git("add", "-A")
    place.git("commit", "-q", "-m", "a program that kills its agent once")
    place.write("workflow.yml", 'name: crash\ntasks: {one: {agent: coder, gate: python, prompt: "Write one.txt"}}\n')
    place.write(
        "rehearsal.yml",
        """\
        rules:
          - when: {task: one}
            turns:
              - tools: [{Write: {file_path: "{{ cwd }}/one.txt", content: "x\\n"}}]
              - tools: [{Bash: {command: "python3 crash.py"}}]
              - {say: "Wrote it."}
        """,
    )

    answer = place.run("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 0, answer.out + answer.err
    assert marker.exists()
    assert "one.txt" in place.git("ls-tree", "--name-only", "main").splitlines()
    told = events(place)
    assert [event["number"] for event in told if event["kind"] == "attempt.started"] == [1]
    assert len([event for event in told if event["kind"] == "agent.deployed"]) == 2
    assert any("You were cut off" in str(event.get("text")) for event in told if event["kind"] == "prompt.sent")
