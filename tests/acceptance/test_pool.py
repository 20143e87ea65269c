"""Agents that stand ready: the real CLI, started before there is a task for it, told of it then; nothing is left at the end."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest

from kapelle.testing.places import Place, git, make_repository, until

SANDBOXES = ["bubblewrap", *(pytest.param(name, marks=pytest.mark.soak) for name in ("process", "container"))]
AGENTS = """\
agents:
  coder: {tools: {allow: [Bash]}, limits: {pids: 200}, pool: {warm: 1}}
  other: {tools: {allow: [Bash]}}
gates: {check: {checks: [{name: "true", run: "true"}]}}
"""
WORKFLOW = """\
name: warm
defaults: {agent: coder, gate: check}
tasks:
  one: {prompt: "Note who you are."}
  two: {prompt: "Note who you are.", needs: [one]}
"""
REHEARSAL = """\
rules:
  - when: {prompt: "leave something at work"}
    turns:
      - tools: [{Bash: {command: "echo $KAPELLE_TASK $(ls | grep -c left) > {{ task }}.txt; touch {{ task }}.left"}}]
      - tools: [{Bash: {command: "sleep 300", run_in_background: true}}]
      - {say: "Noted."}
  - when: {prompt: "please"}
    turns:
      - tools: [{Bash: {command: "echo $KAPELLE_TASK $(ls | grep -c left) > {{ task }}.txt; touch {{ task }}.left"}}]
      - {say: "Noted."}
  - when: {prompt: "Note who you are."}
    turns:
      - tools: [{Bash: {command: "echo $KAPELLE_TASK $KAPELLE_RUN > {{ task }}.txt"}}]
      - {say: "Noted."}
"""


REUSED = """\
agents:
  coder: {tools: {allow: [Bash]}, limits: {pids: 200}, limit: 1, reuse: same-run}
gates: {check: {checks: [{name: "true", run: "true"}]}}
"""
AGAIN = """\
name: again
defaults: {agent: coder, gate: check}
tasks:
  one: {prompt: "Note who you are, please."}
  two: {prompt: "Note who you are, and leave something at work.", needs: [one]}
  three: {prompt: "Note who you are, please.", needs: [two]}
  four: {prompt: "Note who you are, please.", needs: [three]}
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    repository = tmp_path / "shop"
    (repository / ".kapelle").mkdir(parents=True)
    (repository / ".kapelle" / "agents.yml").write_text(AGENTS)
    make_repository(repository)
    made = Place(repository=repository, home=tmp_path / "state", sandbox="process")
    made.write("warm.yml", WORKFLOW)
    made.write("rehearsal.yml", REHEARSAL)
    return made


RUN = ("../warm.yml", "--rehearse", "../rehearsal.yml")


@contextmanager
def staying(place: Place) -> Iterator["subprocess.Popen[str]"]:
    """Let somebody lead, who ends in order at last, unless it was ended before."""
    leader = place.start("resume", "--stay")
    try:
        until(leader, "Leading")
        yield leader
    finally:
        if leader.poll() is None:
            leader.send_signal(signal.SIGINT)
        leader.communicate()


def pool(place: Place) -> dict[str, dict[str, object]]:
    said = place.run("pool", "--json")
    assert said.code == 0, said.err
    return {entry["config"]: entry for entry in json.loads(said.out)}


def events(place: Place) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.run("events", "--json").out.splitlines()]


def spares(place: Place) -> int:
    with closing(connect(place.home / "store.db")) as store:
        return int(store.execute("select count(*) from spares").fetchone()[0])


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_task_is_done_by_an_agent_that_stood_ready(place: Place, sandbox: str, request: pytest.FixtureRequest) -> None:
    if sandbox == "container":
        request.getfixturevalue("podman")
    kept = Place(repository=place.repository, home=place.home, sandbox=sandbox)
    said = kept.run("run", *RUN)
    assert said.code == 0, said.out + said.err
    assert "two: given to one that stood ready (coder)" in said.out
    run_id = json.loads(kept.run("list", "--json").out)[0]["id"]
    assert kept.git("show", "main:two.txt").strip() == f"two {run_id}"
    assert kept.processes() == []
    assert spares(kept) == 0
    assert list((kept.home / "workspaces").iterdir()) == []
    assert list((kept.home / "homes").iterdir()) == []
    assert git(place.repository, "worktree", "list").count("\n") == 0


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_one_program_does_one_task_after_the_other(place: Place, sandbox: str, request: pytest.FixtureRequest) -> None:
    """The second is as new, what the first left at work ends with its program, and the others have one of their own."""
    if sandbox == "container":
        request.getfixturevalue("podman")
    kept = Place(repository=place.repository, home=place.home, sandbox=sandbox)
    (kept.repository / ".kapelle" / "agents.yml").write_text(REUSED)
    (kept.repository / ".gitignore").write_text("*.left\n")
    git(kept.repository, "add", "-A")
    git(kept.repository, "commit", "-qm", "again")
    kept.write("again.yml", AGAIN)
    said = kept.run("run", "../again.yml", *RUN[1:], "--json")
    assert said.code == 0, said.out + said.err
    deployed = [event for event in events(kept) if event["kind"] == "agent.deployed"]
    by_task = {event["task_id"]: event["pid"] for event in deployed}
    names = {task["name"]: task["id"] for task in said.json["tasks"]}
    pids = [by_task[names[name]] for name in ("one", "two", "three", "four")]
    assert pids[0] == pids[1]
    assert pids[2] == pids[3]
    assert pids[1] != pids[2]
    assert [event["kind"] for event in events(kept)].count("agent.cleared") == 2
    for name in names:
        # Nothing of the task before is there, and its tools know whose they are.
        assert kept.git("show", f"main:{name}.txt").split() == [name, "0"]
    assert kept.processes() == []
    assert spares(kept) == 0
    assert list((kept.home / "workspaces").iterdir()) == []
    assert list((kept.home / "homes").iterdir()) == []


def test_agents_stand_ready_for_whatever_is_submitted(place: Place) -> None:
    with staying(place) as leader:
        said = place.run("scale", "other", "1", "--rehearse", "../rehearsal.yml")
        assert said.code == 0, said.err
        assert said.out.startswith("other: 1 agent wanted")
        until(leader, "waits for a task")
        assert pool(place)["other"]["ready"] == 1
        (idle,) = place.run("agents", "--json").json
        assert (idle["config"], idle["state"], idle["task"]) == ("other", "idle", None)
        assert "idle" in place.run("agents").out
        done = place.run("run", "--prompt", "Note who you are.", "--agent", "other", "--rehearse", "../rehearsal.yml")
        assert done.code == 0, done.out + done.err
        assert "task: given to one that stood ready (other)" in done.out
        # Less can be asked for without a login, and of what agents.yml has no more.
        (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS.replace("other:", "another:"))
        assert (place.run("scale", "other", "0").code, place.run("scale", "other", "auto").code) == (0, 0)
    assert place.run("scale", "other", "auto").code == 2
    assert place.processes() == []


def test_spares_of_a_leader_that_was_killed_are_ended_by_the_next(place: Place) -> None:
    with staying(place) as leader:
        assert place.run("scale", "other", "2", "--rehearse", "../rehearsal.yml").code == 0
        until(leader, "waits for a task")
        until(leader, "waits for a task")
        leader.kill()
    before = {spare["id"] for spare in pool(place)["other"]["spares"]}  # type: ignore[attr-defined]
    assert len(before) == 2
    with staying(place) as later:
        until(later, "waits for a task")
        until(later, "waits for a task")
        now = {spare["id"] for spare in pool(place)["other"]["spares"]}  # type: ignore[attr-defined]
        assert len(now) == 2
        assert not now & before
        assert len([line for line in place.processes() if "stream-json" in line]) == 2
    assert place.processes() == []
    assert spares(place) == 0


def test_a_task_that_waits_is_given_to_an_agent_and_not_a_second_time(place: Place) -> None:
    place.write("warm.yml", WORKFLOW + '  three: {prompt: "Note who you are.", agent: other, needs: [two]}\n')
    said = place.run("submit", *RUN, "--json")
    assert said.code == 0, said.err
    given = place.run("deploy", "other", "one")
    assert (given.code, given.out) == (0, "one goes to other, before all others.\n")
    again = place.run("deploy", "coder", "one")
    assert again.code != 0
    assert "was given to other already" in again.err
    place.run("resume")
    shown = json.loads(place.run("show", "one", "--json").out)
    assert shown["agent"] == "other"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("scale", "coder", "many"), "no number of agents"),
        (("scale", "coder", "1001"), "no number of agents"),
        (("scale", "nobody", "1", "--rehearse", "../rehearsal.yml"), "nobody"),
        (("deploy", "coder", "--force"), "--force is for a task"),
    ],
)
def test_what_cannot_be_asked_of_the_pool_is_told(place: Place, arguments: tuple[str, ...], words: str) -> None:
    said = place.run(*arguments)
    assert said.code == 2
    assert words in said.err
