"""A command from the prepared process is the same command."""

import signal
from pathlib import Path

import pytest

from kapelle.testing.places import Place
from kapelle.testing.prepared import PreparedCommands

NEW = {"LC_MESSAGES": "C"}
"""Lets a command start from nothing."""


@pytest.mark.parametrize("arguments", [("list",), ("--version",), ("--help",), ("run", "nowhere.yml"), ("show", b"\xff")])
def test_it_says_what_a_new_process_says(place: Place, arguments: tuple[str, ...]) -> None:
    assert place.run(*arguments) == place.run(*arguments, env=NEW)


def test_what_one_did_is_there_for_the_next_and_what_one_was_told_is_not(place: Place, tmp_path: Path) -> None:
    place.write("flow.yml", "name: flow\ntasks: {a: {agent: script, gate: none, prompt: 'echo 1 > a.txt'}}\n")
    assert place.run("submit", "../flow.yml", env={"KAPELLE_HOME": str(tmp_path / "other")}).code == 0
    assert place.run("list", "--json").json == []
    assert place.run("run", "../flow.yml").code == 0
    assert [run["state"] for run in place.run("list", "--json").json] == ["completed"]


def test_one_that_computes_for_too_long_is_ended(place: Place) -> None:
    place.write("long.yml", "name: long\ntasks: {a: {agent: script, gate: none, prompt: '{{ 9 ** 9 }}'}}\n")
    commands = PreparedCommands()
    try:
        ended = commands.run(["run", "../long.yml"], cwd=place.repository, env=place.environment, seconds=0)
    finally:
        commands.close()
    assert ended.code in {-signal.SIGKILL, -signal.SIGXCPU}


def test_after_its_end_another_is_prepared(place: Place) -> None:
    commands = PreparedCommands()
    assert commands.run(["--version"], cwd=place.repository, env=place.environment).code == 0
    commands.close()
    commands.close()
    assert commands.run(["--version"], cwd=place.repository, env=place.environment).code == 0
    commands.close()
