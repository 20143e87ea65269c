"""Budgets that are spent while real agents work: what a person is asked, and what becomes of the answer."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from kapelle.adapters.gateway.prices import PRICES
from kapelle.testing.places import Place, until

WORKFLOW = """\
name: bounded
defaults: {agent: coder, gate: python, max_attempts: 1}
tasks:
  one: {prompt: "Write three files", budget: {usd: 0.02}}
"""
# A reply costs a cent: 2,000 tokens at five dollars a million, whatever the model.
REHEARSAL = """\
rules:
  - when: {task: "*"}
    turns:
      - {tools: [{Write: {file_path: "{{ cwd }}/a.txt", content: "a\\n"}}], usage: {input_tokens: 2000}}
      - {tools: [{Write: {file_path: "{{ cwd }}/b.txt", content: "b\\n"}}], usage: {input_tokens: 2000}}
      - {tools: [{Write: {file_path: "{{ cwd }}/c.txt", content: "c\\n"}}], usage: {input_tokens: 2000}}
      - {say: "Wrote all three.", usage: {input_tokens: 2000}}
"""
FIVE = {"input": 5.0, "output": 0.0, "cache_read": 0.0, "cache_write": 0.0}
PRICED = json.dumps(dict.fromkeys(PRICES, FIVE))


def events(place: Place, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in place.run("events", "--json").out.splitlines()]
    return [event for event in found if event["kind"] == kind]


@pytest.fixture
def running(place: Place) -> Iterator["subprocess.Popen[str]"]:
    """A run that has come to the end of its budget."""
    place.write("workflow.yml", WORKFLOW)
    place.write("rehearsal.yml", REHEARSAL)
    prices = place.write("prices.json", PRICED)
    process = place.start("run", "../workflow.yml", "--rehearse", "../rehearsal.yml", env={"KAPELLE_PRICES": str(prices)})
    try:
        said = until(process, "waits for budget")
        assert re.search(r"kapelle answer b-\w+ raise AMOUNT, or stop", said), said
        yield process
    finally:
        process.terminate()
        process.communicate()


def test_a_budget_that_is_raised_lets_the_task_complete_in_the_same_conversation(
    place: Place, running: "subprocess.Popen[str]"
) -> None:
    (item,) = place.run("inbox", "--json").json
    assert (item["kind"], item["name"], item["answers"]) == ("budget", "task one", ["raise", "stop"])
    assert item["what"] == "$0.02 of $0.02 is spent; 1 task waits: one"
    assert "the budget of task one is spent" in place.run("explain", "one").out
    assert f"kapelle answer {item['id']} raise AMOUNT, or stop" in place.run("status").out
    # Its agent is gone, and its room is another's.
    until_none_lives(place)

    answer = place.run("answer", item["id"], "raise", "0.05", "--reason", "it is worth it")

    assert answer.code == 0, answer.err
    assert answer.out == "The budget of task one is raised by 0.05; what waited goes on.\n"
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 0, said
    assert place.git("ls-tree", "--name-only", "main").split()[-3:] != []
    assert {"a.txt", "b.txt", "c.txt"} <= set(place.git("ls-tree", "--name-only", "main").split())
    (attempt,) = events(place, "attempt.started")
    assert attempt["number"] == 1
    assert len(events(place, "agent.deployed")) == 2
    # One conversation: the program kept it in one file.
    assert len(list(place.home.glob("homes/*/**/*.jsonl"))) <= 1
    (raised,) = events(place, "budget.raised")
    assert (raised["more"], raised["reason"]) == (0.05, "it is worth it")
    assert place.run("answer", item["id"], "stop").code != 0


def test_stop_fails_the_task_and_keeps_its_work(place: Place, running: "subprocess.Popen[str]") -> None:
    (item,) = place.run("inbox", "--json").json
    refused = place.run("answer", item["id"], "raise")
    assert "raise needs an amount" in refused.err
    assert "no amount of usd" in place.run("answer", item["id"], "raise", "much").err
    assert "cannot be answered with allow" in place.run("answer", item["id"], "allow").err

    assert place.run("answer", item["id"][:6], "stop").code == 0

    said, _ = running.communicate(timeout=120)
    assert running.returncode == 1, said
    failed = place.run("show", "one", "--json").json
    assert failed["state"] == "failed"
    assert "said stop" in failed["failure"]["message"]
    (kept,) = (ref for ref in place.git("for-each-ref", "--format=%(refname)", "refs/kapelle").splitlines() if "/kept/" in ref)
    assert {"a.txt", "b.txt"} <= set(place.git("ls-tree", "--name-only", kept).split())


def until_none_lives(place: Place) -> None:
    process = place.start("events", "--follow", "--json")
    until(process, '"agent.stopped"')
    process.terminate()
    process.communicate()
