"""Command rules and questions, through the real CLI."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kapelle.testing.places import Place, until

AGENTS = """\
sandbox: SANDBOX
agents:
  coder: {program: claude, tools: {allow: [Read, Write, Bash]}RULES}
gates: {quick: {checks: [{name: there, run: "test -f a.txt"}]}}
"""
FLOW = """\
name: ruled
defaults: {agent: coder, gate: quick, max_attempts: 1}
tasks: {one: {prompt: Work}}
"""


def prepare(place: Place, *commands: str, sandbox: str = "process", rules: str = "") -> None:
    """Let an agent run *commands* one after the other, each whatever became of those before, and write a file."""
    agents = AGENTS.replace("SANDBOX", sandbox).replace("RULES", f", rules: {{{rules}}}" if rules else "")
    (place.repository / ".kapelle" / "agents.yml").write_text(agents)
    place.git("add", "-A")
    place.git("commit", "-qm", "rules")
    turns = [{"tools": [{"Bash": {"command": command}}]} for command in commands]
    turns += [{"tools": [{"Write": {"file_path": "{{ cwd }}/a.txt", "content": "a\n"}}]}, {"say": "Done."}]
    place.write("flow.yml", FLOW)
    place.write("rehearsal.yml", json.dumps({"rules": [{"when": {"prompt": "Work"}, "turns": turns}]}))


def events(place: Place, kind: str = "") -> list[dict[str, Any]]:
    said = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    return [event for event in said if event["kind"].startswith(kind)]


@pytest.mark.parametrize("sandbox", ["process", "bubblewrap"])
def test_what_a_rule_denies_is_explained_to_the_agent_which_goes_on(
    place: Place, sandbox: str, request: pytest.FixtureRequest
) -> None:
    if sandbox == "bubblewrap":
        request.getfixturevalue("bubblewrap")
    prepare(place, "sudo id > root.txt", "echo hello > hello.txt", sandbox=sandbox)

    answer = place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", "--json")

    assert answer.code == 0, answer.out + answer.err
    assert place.git("show", "main:hello.txt") == "hello"
    assert "root.txt" not in place.git("ls-tree", "--name-only", "main")
    (denied,) = events(place, "command.denied")
    assert (denied["tool"], denied["what"], denied["rule"]) == ("Bash", "sudo id > root.txt", "privilege")
    (told,) = events(place, "agent.tool_failed")
    assert "Kapelle's rule privilege" in told["about"]
