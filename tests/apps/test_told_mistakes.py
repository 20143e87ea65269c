"""What is wrong in agents.yml: all of it, nothing else, each in its place, with what to write instead."""

import pytest

from kapelle.apps import models
from kapelle.core.sizes import parse_size
from kapelle.documents import Document
from kapelle.testing.places import Place


def told(text: str) -> list[str]:
    """Return what is wrong with *text* as agents.yml."""
    _, wrong = Document.parse(text, "agents.yml").fit(models.Agents)
    return [f"{mistake.line}:{mistake.column}: {mistake.message} -> {mistake.advice}" for mistake in wrong]


def test_a_bad_host_is_the_only_mistake_that_is_told_of_it() -> None:
    assert told('network: {allow: ["https://x.org/"]}\n') == [
        "1:19: allow: 'https://x.org/' names no host -> write pypi.org, *.example.org, * or example.org:8443"
    ]


def test_every_bad_host_is_told() -> None:
    hosts = ["http://a", "b/x", "c:99999", "-d", "*e", "f..g"]
    wrong = told("network:\n  allow:\n" + "".join(f"    - '{host}'\n" for host in hosts) + "  private: ['10.1.0.0/99']\n")
    assert [line.partition(":")[0] for line in wrong] == ["3", "4", "5", "6", "7", "8", "9"]
    assert [host in line for host, line in zip(hosts, wrong, strict=False)] == [True] * 6


def test_a_bad_name_of_a_built_in_rule_is_the_only_mistake() -> None:
    (only,) = told("rules: {builtin: {forcepush: deny}}\n")
    assert only == "1:19: there is no built-in rule forcepush -> write force-push"


def test_a_bad_name_of_an_agent_is_told_beside_what_is_wrong_with_the_agent() -> None:
    bad = told("agents:\n  '  ': {limit: many}\n")
    assert [line.partition(":")[0] for line in bad] == ["2", "2"]


def test_a_secret_s_bad_name_is_told_at_the_name_and_not_repeated() -> None:
    (only,) = told('agents:\n  coder:\n    secrets:\n      GOOD: env:A\n      "bad-name": env:B\n')
    assert only.startswith("5:7: this is no name of a variable")
    assert "bad-name" not in only


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("memory: -2GB", "memory: '-2GB' is no size -> write more than 0, such as 500MB"),
        ("memory: 0MB", "memory cannot be '0MB' -> write more than 0"),
        ("memory: 2 gigs", "such as 500MB or 2GB (KB, MB, GB, or KiB, MiB, GiB)"),
        ("memory: 1", "memory: 1 B is too little for any process -> write 1 MB or more"),
        ("disk: 1KB", "disk: 1 kB is too little for any process -> write 1 MB or more"),
    ],
)
def test_sizes_that_are_none_and_sizes_that_nothing_fits_in(limits: str, said: str) -> None:
    (only,) = told(f"limits: {{{limits}}}\n")
    assert said in only


@pytest.mark.parametrize(("text", "size"), [("2GiB", 2**31), ("1.5 KiB", 1536), ("2Gi", 2**31), ("2GB", 2 * 10**9), ("7B", 7)])
def test_sizes_in_thousands_and_in_1024s(text: str, size: int) -> None:
    assert parse_size(text) == size


def validate(place: Place, agents: str, **env: str) -> str:
    (place.repository / ".kapelle" / "agents.yml").write_text(agents)
    said = place.run("validate", env=env)
    assert said.code == 2
    return said.err.replace(f"{place.repository}/.kapelle/", "")


def test_a_variable_is_named_as_the_origin_of_what_it_gave(place: Place) -> None:
    agents = "sandbox: process\nagents: {one: {program: command}}\n"
    assert validate(place, agents, KAPELLE_SANDBOX="bublewrap") == (
        "environment KAPELLE_SANDBOX: there is no sandbox bublewrap\n    → write bubblewrap\n"
        "1 mistake; nothing was done. [KAP-101]\n"
    )
    place.write("flow.yml", "name: flow\ntasks: {one: {agent: one, prompt: 'true'}}\n")
    said = place.run("run", "../flow.yml", env={"KAPELLE_TARGET": "nobranch"})
    assert "has no branch nobranch (from environment KAPELLE_TARGET)" in said.err


def test_a_rule_about_a_tool_that_is_nearly_called_so_would_never_hold(place: Place) -> None:
    agents = """\
rules: {deny: ["Bsh(rm *)", "mcp__bash__x", "Ba?h", "Frobnicate", "Edit(a/**)"]}
agents:
  one: {program: claude}
  two: {program: claude}
  three: {program: claude, rules: {ask: ["write(x)"]}}
"""
    said = validate(place, agents)
    assert "agents.yml:1:16: no tool is called Bsh: the rule Bsh(rm *) would never hold\n    → write Bash(rm *)" in said
    assert "agents.yml:5:42: no tool is called write: the rule write(x) would never hold\n    → write Write(x)" in said
    assert "2 mistakes" in said


def test_memory_in_which_the_cli_cannot_work_is_a_mistake(place: Place) -> None:
    agents = "agents:\n  one: {program: claude, limits: {memory: 100MB}}\n  two: {program: command, limits: {memory: 100MB}}\n"
    said = validate(place, agents)
    assert "agents.yml:2:35: claude cannot work with 100 MB of memory\n    → write 200 MB or more" in said
    assert "1 mistake;" in said
