"""The real CLI when the model API says no."""

import json
from typing import Any

import pytest

from kapelle.testing.places import Place, Said, until

WORKFLOW = """\
name: limits
defaults: {agent: coder, gate: python, max_attempts: 1}
tasks:
  one: {prompt: "Write one.txt"}
  two: {prompt: "Write two.txt"}
"""
WRITES = """\
- tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "a\\n"}}]
- {say: "Wrote it."}
"""


def rehearsal(*faults: str, turns: str = WRITES) -> str:
    lines = [f"- {fault}" for fault in faults] + turns.strip().splitlines()
    return "rules:\n  - when: {task: '*'}\n    turns:\n" + "".join(f"      {line}\n" for line in lines)


def run(place: Place, script: str, workflow: str = WORKFLOW) -> Said:
    place.write("workflow.yml", workflow)
    place.write("rehearsal.yml", script)
    return place.run("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", "--json")


def events(place: Place, kind: str = "") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    return [event for event in found if event["kind"].startswith(kind)]


def completed(answer: Said) -> None:
    assert answer.code == 0, answer.out + answer.err
    assert [(task["state"], task["attempts"]) for task in answer.json["tasks"]] == [("completed", 1), ("completed", 1)]


def test_a_usage_limit_pauses_both_tasks_until_its_reset(place: Place) -> None:
    answer = run(place, rehearsal("{error: 429, usage_limit: 4s, shared: true}"))
    completed(answer)
    (limited,) = events(place, "account.limited")
    assert limited["resets_at"] is not None
    (restored,) = events(place, "account.restored")
    begun = [event["at"] for event in events(place, "agent.deployed") if event["seq"] > limited["seq"]]
    # Those that waited start one after the other, and none before the reset.
    assert begun
    assert all(at > limited["resets_at"][:19] for at in begun)
    assert restored["at"] > limited["resets_at"][:19]
    # The CLI is told at once, and does not ask again and again.
    refused = [event for event in events(place, "model.called") if event["status"] == 429]
    assert len(refused) <= 2
    assert not events(place, "model.retried")


@pytest.mark.soak
def test_an_expired_login_asks_a_person_once_and_goes_on_when_told(place: Place) -> None:
    place.write("workflow.yml", WORKFLOW)
    script = rehearsal('{error: 401, message: "OAuth token has expired", shared: true}')
    place.write("rehearsal.yml", script)
    leader = place.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml")
    said = until(leader, "log in again with `claude`")
    run_id = place.run("list", "--json").json[0]["id"]
    status = place.run("status", "--json").json
    assert [account["state"] for account in status["accounts"]] == ["refused"]
    assert "log in again with `claude`" in place.run("status").out
    assert place.run("show", run_id, "--json").json["account"]["trouble"] == "login_expired"
    assert place.run("resume", run_id).code == 0
    said += leader.communicate()[0]
    assert leader.returncode == 0, said
    assert len(events(place, "account.refused")) == 1
    assert [task["attempts"] for task in place.run("show", run_id, "--json").json["tasks"]] == [1, 1]


@pytest.mark.soak
def test_an_overloaded_api_is_waited_out(place: Place) -> None:
    # More than the CLI tries by itself, with this setting.
    agents = place.repository / ".kapelle" / "agents.yml"
    text = agents.read_text(encoding="utf-8")
    agents.write_text(text.replace("max_turns: 30", "max_turns: 30\n    env: {CLAUDE_CODE_MAX_RETRIES: '1'}"), encoding="utf-8")
    place.git("commit", "-qam", "few retries")
    answer = run(place, rehearsal("{error: 529, times: 3}"), WORKFLOW.replace('  two: {prompt: "Write two.txt"}\n', ""))
    assert answer.code == 0, answer.out + answer.err
    (task,) = answer.json["tasks"]
    assert (task["state"], task["attempts"]) == ("completed", 1)
    (waited,) = [event for event in events(place, "task.waited") if event["waits_for"] is not None]
    assert (waited["waits_for"], "Overloaded" in waited["detail"]) == ("retry", True)
    assert not events(place, "account.")


def test_a_conversation_that_is_too_long_for_the_cli_to_shorten_goes_on_in_a_fresh_one(place: Place) -> None:
    turns = """\
- tools: [{Write: {file_path: "{{ cwd }}/half.txt", content: "half\\n"}}]
- {error: 400, message: "prompt is too long: 210000 tokens > 200000 maximum", times: 20}
- {say: "never said"}
"""
    fresh = """\
rules:
  - when: {task: one, prompt: "(?s)You take over a task.*half.txt"}
    turns:
      - tools: [{Write: {file_path: "{{ cwd }}/one.txt", content: "whole\\n"}}]
      - {say: "Finished it."}
"""
    script = fresh + rehearsal(turns=turns).removeprefix("rules:\n")
    workflow = WORKFLOW.replace('  two: {prompt: "Write two.txt"}\n', "")
    answer = run(place, script, workflow)
    assert answer.code == 0, answer.out + answer.err
    (task,) = answer.json["tasks"]
    assert (task["state"], task["attempts"]) == ("completed", 1)
    assert len(events(place, "conversation.forked")) == 1
    assert place.git("ls-tree", "--name-only", "main", "half.txt", "one.txt").splitlines() == ["half.txt", "one.txt"]


@pytest.mark.soak
def test_a_conversation_that_the_cli_can_shorten_goes_on_by_itself(place: Place) -> None:
    turns = """\
- tools: [{Write: {file_path: "{{ cwd }}/{{ task }}.txt", content: "a\\n"}}]
- {error: 400, message: "prompt is too long: 210000 tokens > 200000 maximum"}
- {say: "Wrote it."}
"""
    answer = run(place, rehearsal(turns=turns))
    completed(answer)
    assert not events(place, "conversation.forked")


@pytest.mark.parametrize("turn", ['{say: "I will not.", refuse: true}', "{refuse: true}"])
def test_a_refusal_ends_the_task_with_its_own_reason(place: Place, turn: str) -> None:
    workflow = WORKFLOW.replace('  two: {prompt: "Write two.txt"}\n', "").replace("max_attempts: 1", "max_attempts: 3")
    answer = run(place, rehearsal(turns=f"- {turn}\n- {turn}\n"), workflow)
    assert answer.code == 1, answer.out + answer.err
    (task,) = answer.json["tasks"]
    assert (task["failure"]["kind"], task["attempts"]) == ("refused", 1)
    assert {event["trouble"] for event in events(place, "model.called")} == {"refused"}


@pytest.mark.soak
def test_a_key_that_is_not_valid_waits_for_another(place: Place) -> None:
    place.write("served.yml", rehearsal("{error: 401, shared: true}"))
    server = place.start("rehearse", "serve", "../served.yml", "--json")
    address = json.loads(until(server, "address"))["address"]
    place.write("workflow.yml", WORKFLOW)
    env = {"ANTHROPIC_BASE_URL": address, "ANTHROPIC_API_KEY": "sk-old"}
    leader = place.start("run", "../workflow.yml", env=env)
    said = until(leader, "the key is not valid")
    leader.terminate()
    leader.communicate()
    assert "sk-old" not in said
    answer = place.run("resume", env=env | {"ANTHROPIC_API_KEY": "sk-new"})
    server.terminate()
    server.communicate()
    assert answer.code == 0, answer.out + answer.err
    report = place.run("show", place.run("list", "--json").json[0]["id"], "--json").json
    assert [task["state"] for task in report["tasks"]] == ["completed", "completed"]
    for path in place.home.rglob("*"):
        assert not path.is_file() or b"sk-old" not in path.read_bytes(), path
