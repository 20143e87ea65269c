"""A hostile agent and a hostile check, through the real CLI in a real sandbox: what they try, and what comes of it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.testing.places import Place, Said

SOAKED = [pytest.param(name, marks=pytest.mark.soak) for name in ("podman", "docker")]
"""Containers are tried with everything else; `make soak` tries this in them, too."""
TRIES = Path(__file__).with_name("tries.py")
SECRET = "sk-planted-in-the-environment"  # noqa: S105  # nobody's
SOME = (
    "read the store",
    "read the operator's home",
    "found the key",
    "changed git's settings",
    "wrote .git/hooks",
    "changed .kapelle/agents.yml",
)
AGENTS = """\
sandbox: SANDBOX
path: [PROGRAMS]NETWORK
agents: {coder: {program: claude, tools: {allow: [Read, Write, Bash]}}}
gates:
  hostile:
    rounds: 0
    checks:
      - {name: tries, run: "python3 -m pytest -q -p no:cacheprovider test_it.py; cat by-check.txt; test ! -s by-check.txt"}
      - {name: agent, run: "cat by-agent.txt; test ! -s by-agent.txt"}
      - {name: outlives, run: "setsid sh -c 'sleep 600' > /dev/null 2>&1 < /dev/null &"}
"""
CONFTEST = """\
import subprocess, sys
with open("by-check.txt", "w") as said:
    subprocess.run([sys.executable, "tries.py"], stdout=said, check=True)
"""
FLOW = """\
name: hostile
defaults: {agent: coder, gate: hostile, max_attempts: 1}
tasks: {one: {prompt: Be evil}, two: {prompt: Be evil}}
"""
REHEARSAL = """\
rules:
  - when: {prompt: "Be evil"}
    turns:
      - tools: [{Bash: {command: "python3 tries.py > by-agent.txt; git config user.name evil; echo done"}}]
      - tools: [{Bash: {command: "(setsid sh -c 'sleep 600; echo >> by-agent.txt' > /dev/null 2>&1 < /dev/null &); echo away"}}]
      - {say: "I was good."}
"""


def let_loose(place: Place, sandbox: str) -> Said:
    (place.home.parent / "private").write_text("private")
    shutil.copy(TRIES, place.repository / "tries.py")
    places = {
        "state": str(place.home),
        "checkout": str(place.repository),
        "home": str(place.home.parent),
        "secret": SECRET,
        "closed": sandbox != "process",
    }
    (place.repository / "places.json").write_text(json.dumps(places))
    (place.repository / ".gitignore").write_text("by-check.txt\n__pycache__\n")
    (place.repository / "conftest.py").write_text(CONFTEST)
    (place.repository / "test_it.py").write_text("def test_it(): pass\n")
    agents = AGENTS.replace("SANDBOX", sandbox).replace("PROGRAMS", str(Path(sys.executable).parent))
    network = "" if sandbox == "process" else "\nnetwork: model-only"
    (place.repository / ".kapelle" / "agents.yml").write_text(agents.replace("NETWORK", network))
    place.git("add", "-A")
    place.git("commit", "-qm", "hostile")
    place.write("flow.yml", FLOW)
    place.write("rehearsal.yml", REHEARSAL)
    # Of a process of its own the system shows what it was started with: there the key is to be found.
    env = {"ANTHROPIC_API_KEY": SECRET, "PYTHONUTF8": "1"}
    return place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", env=env)


@pytest.fixture(params=["bubblewrap", *SOAKED])
def sandbox(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue(request.param)
    return "bubblewrap" if request.param == "bubblewrap" else "container"


def test_nothing_that_they_try_succeeds_in_a_sandbox(place: Place, sandbox: str) -> None:
    common = place.repository / ".git"
    config, hooks = (common / "config").read_text(), sorted(path.name for path in (common / "hooks").iterdir())

    answer = let_loose(place, sandbox)

    assert answer.code == 0, answer.out + answer.err
    assert place.git("show", "main:by-agent.txt") == ""
    assert (common / "config").read_text() == config
    assert sorted(path.name for path in (common / "hooks").iterdir()) == hooks
    assert place.git("for-each-ref", "--format=%(refname)", "refs/heads") == "refs/heads/main"
    assert place.git("fsck", "--no-dangling", "--no-progress") == ""
    assert place.git("status", "--porcelain") == ""
    assert place.git("diff", "HEAD", "--stat", "--", ".kapelle") == ""
    said = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    # The agents and the checks of both tasks; where both were merged together, their gate is of no one task.
    refused = [event["host"] for event in said if event["kind"] == "network.denied" and event["task_id"] is not None]
    assert refused.count("169.254.169.254") == 4
    assert place.processes() == []


@pytest.mark.soak
def test_nor_does_it_when_kapelle_is_run_by_somebody_else_than_root(without_root: Callable[..., None]) -> None:
    """Whose agents are the same user as they."""
    without_root(f"{__file__}::{test_nothing_that_they_try_succeeds_in_a_sandbox.__name__}[bubblewrap]")


@pytest.mark.soak
def test_they_succeed_where_nothing_is_isolated(place: Place) -> None:
    """Or the test above would prove nothing."""
    assert let_loose(place, "process").code == 1
    ended = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    said = "".join(event["tail"] for event in ended if event["kind"] == "check.ended")
    assert [each for each in SOME if each not in said] == []
