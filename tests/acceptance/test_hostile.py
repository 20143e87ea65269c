"""A hostile agent and a hostile check, through the real CLI in a real sandbox: what they try, and what comes of it."""

import json
import shutil
from pathlib import Path

import pytest

from kapelle.testing.places import Place, Said

TRIES = Path(__file__).with_name("tries.py")
SECRET = "sk-planted-in-the-environment"  # noqa: S105  # nobody's
SOME = ("read the store", "read the operator's home", "found the key", "changed git's settings", "wrote .git/hooks")
AGENTS = """\
sandbox: SANDBOX
agents: {coder: {program: claude, tools: {allow: [Read, Write, Bash]}}}
gates:
  hostile:
    rounds: 0
    checks:
      - {name: tries, run: "python3 tries.py > by-check.txt; cat by-check.txt; test ! -s by-check.txt"}
      - {name: agent, run: "cat by-agent.txt; test ! -s by-agent.txt"}
      - {name: outlives, run: "setsid sh -c 'sleep 600' > /dev/null 2>&1 < /dev/null &"}
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
    }
    (place.repository / "places.json").write_text(json.dumps(places))
    (place.repository / ".gitignore").write_text("by-check.txt\n")
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS.replace("SANDBOX", sandbox))
    place.git("add", "-A")
    place.git("commit", "-qm", "hostile")
    place.write("flow.yml", FLOW)
    place.write("rehearsal.yml", REHEARSAL)
    return place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", env={"ANTHROPIC_API_KEY": SECRET})


@pytest.fixture(params=["bubblewrap", "container"])
def sandbox(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue({"bubblewrap": "bubblewrap", "container": "podman"}[request.param])
    return str(request.param)


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
    assert place.processes() == []


def test_they_succeed_where_nothing_is_isolated(place: Place) -> None:
    """Or the test above would prove nothing."""
    assert let_loose(place, "process").code == 1
    ended = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    said = "".join(event["tail"] for event in ended if event["kind"] == "check.ended")
    assert [each for each in SOME if each not in said] == []
