"""A real agent at work, and what a person has to say to it: frozen, thawed, spoken to, stopped."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from select import select
from time import monotonic

import pytest

from kapelle.testing.places import Place, make_repository, until

AGENTS = "agents: {coder: {program: claude, sandbox: process, tools: {allow: [Bash]}}}\n"
WORKFLOW = """\
name: steered
defaults: {agent: coder, gate: none, timeout: LIMIT}
tasks: {look: {prompt: "first", reads_only: true}}
"""
REHEARSAL = """\
rules:
  - when: {prompt: "^first$"}
    turns: [{tools: [{Bash: {command: "echo up > FOLDER/up; cat FOLDER/go"}}]}, {say: "first done"}]
  - when: {prompt: "^letters"}
    turns: [{tools: [{Bash: {command: "echo up > FOLDER/up; cat FOLDER/go"}}]}, {say: "second done"}]
otherwise: {say: "third done"}
"""


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Place, "subprocess.Popen[str]"]]:
    folder = tmp_path / "shop" / ".kapelle"
    folder.mkdir(parents=True)
    (folder / "agents.yml").write_text(AGENTS)
    for name in ("up", "go"):
        os.mkfifo(tmp_path / name)
    place = Place(repository=make_repository(tmp_path / "shop"), home=tmp_path / "state")
    place.write("flow.yml", WORKFLOW.replace("LIMIT", getattr(request, "param", "5m")))
    place.write("said.yml", REHEARSAL.replace("FOLDER", str(tmp_path)))
    leader = place.start("run", "../flow.yml", "--rehearse", "../said.yml")
    try:
        until(leader, "Bash echo up")
        (tmp_path / "up").read_text()
        yield place, leader
    finally:
        place.run("cancel", "steered")
        leader.communicate(timeout=60)


def stream(place: Place, *arguments: str, given: bytes) -> None:
    command = [sys.executable, "-m", "kapelle", *arguments]
    done = subprocess.run(command, cwd=place.repository, env=place.environment, input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stage", ["20s"], indirect=True)
def test_a_frozen_agent_loses_no_time_and_what_is_said_to_it_arrives_to_the_letter(
    stage: tuple[Place, "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    place, leader = stage
    until_called = monotonic() + 60
    while not (listed := place.run("agents", "--json").json)[0]["model_calls"] and monotonic() < until_called:
        # The tool that it called may begin before the call that asked for it is booked.
        pass
    assert [(entry["task"]["name"], entry["config"], entry["shown_as"]) for entry in listed] == [("look", "coder", "active")]
    assert listed[0]["model_calls"] == 1

    begun = monotonic()
    assert place.run("freeze", "look").code == 0
    assert place.run("agents", "--json").json[0]["shown_as"] == "frozen"
    # As it is, and not as it was at the last heartbeat.
    assert "look is held still by a person for " in " ".join(place.run("status").out.split())
    assert "frozen by person:" in place.run("logs", "look").out
    stat = Path(f"/proc/{place.run('agents', '--json').json[0]['pid']}/stat")
    # The shim lives, and its clock stands still: longer than the whole time limit. Nothing happens, and nobody tells of that.
    while monotonic() - begun < 21:
        assert stat.exists()
        select([], [], [], 0.5)
    assert place.run("thaw", listed[0]["id"][:8]).code == 0
    assert "held still" not in place.run("status").out

    # 200 kB of what shells, JSON and terminals would change if they could.
    letters = "letters \u00e9\u4e2d\U0001f600 \\n \\\\ \" ' $HOME `x` <b> \t tail\n"
    text = (letters * (200_000 // len(letters.encode()) + 1)).rstrip("\n")
    stream(place, "send", "look", given=text.encode())
    with (tmp_path / "go").open("w") as go:
        go.write("on")
    until(leader, "Bash echo up")
    (tmp_path / "up").read_text()
    said = [
        entry["message"]["content"]
        for path in place.home.glob("homes/*/.claude/projects/*/*.jsonl")
        for entry in map(json.loads, path.read_text().splitlines())
        if entry.get("type") == "user"
    ]
    heard = [block["text"] for content in said if isinstance(content, list) for block in content if block.get("type") == "text"]
    heard += [content for content in said if isinstance(content, str)]
    assert text in heard
    with (tmp_path / "go").open("w") as go:
        go.write("on")
    until(leader, "run completed")
    assert re.search(r"person:\S+ says \(round 0\): letters", place.run("logs", "look").out)


def test_a_stopped_agent_leaves_its_task_waiting_and_goes_on_in_the_same_conversation(
    stage: tuple[Place, "subprocess.Popen[str]"],
) -> None:
    place, leader = stage
    assert place.run("stop", "look", "--now").code == 0
    until(leader, "waits for paused")
    task = place.run("show", "look", "--json").json
    assert (task["state"], task["waits_for"], task["attempts"]) == ("running", "paused", 1)
    assert place.run("agents", "--json").json == []
    refused = place.run("send", "look", "hello")
    assert refused.code == 2
    assert "has no agent just now" in refused.err

    assert place.run("resume", "look").code == 0
    until(leader, "run completed")
    assert place.run("show", "look", "--json").json["attempts"] == 1
    assert place.run("show", "look", "--json").json["summary"] == "first done"


def test_stop_all_asks_first_and_pauses_what_is_open(stage: tuple[Place, "subprocess.Popen[str]"]) -> None:
    place, leader = stage
    refused = place.run("stop-all")
    assert (refused.code, "Say --yes" in refused.err) == (2, True)
    assert [entry["task"] for entry in place.run("stop-all", "--now", "--yes", "--json").json] == ["look"]
    until(leader, "waits for paused")
    assert place.run("show", "steered", "--json").json["paused"] is True
    assert place.run("agents").out == "No agent is at work.\n"


def test_what_begins_with_a_slash_is_said_to_the_model_and_is_no_command_to_the_cli(place: Place) -> None:
    prompts = ("/help", "/clear", "/model haiku")
    tasks = "".join(f"  t{number}: {{prompt: {prompt}, reads_only: true}}\n" for number, prompt in enumerate(prompts))
    place.write("flow.yml", f"name: slashes\ndefaults: {{agent: coder, gate: none}}\ntasks:\n{tasks}")
    place.write("said.yml", 'rules: []\notherwise: {say: "heard {{ prompt }}"}\n')

    answer = place.run("run", "../flow.yml", "--rehearse", "../said.yml")

    assert answer.code == 0, answer.out + answer.err
    for number, prompt in enumerate(prompts):
        assert f"heard {prompt}" in place.run("logs", f"t{number}").out
