"""Budgets that are spent while real agents work: what a person is asked, and what becomes of the answer."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kapelle.adapters.gateway.prices import PRICES
from kapelle.testing.multiplexer import window
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


@pytest.mark.usefixtures("running")
def test_what_is_to_be_typed_is_whole_on_a_live_screen(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Also for who comes to it later, and was not there when it was asked."""
    request.getfixturevalue("program")("tmux")
    (item,) = place.run("inbox", "--json").json
    command = [sys.executable, "-m", "kapelle", "resume"]
    with window(tmp_path / "mine", *command, cwd=place.repository, env=place.environment) as mine:
        seen = mine.until("1 waits for you", "waits for budget")
    assert f"\n  → kapelle answer {item['id']} raise AMOUNT, or stop" in seen, seen


@pytest.mark.soak
def test_a_budget_that_is_raised_lets_the_task_complete_in_the_same_conversation(
    place: Place, running: "subprocess.Popen[str]"
) -> None:
    (item,) = place.run("inbox", "--json").json
    assert (item["kind"], item["name"], item["answers"]) == ("budget", "task one", ["raise", "stop"])
    assert item["what"] == "$0.02 of $0.02 spent; 1 task waits: one"
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


# --- Two budgets at once, and a leader that dies ---

CENTS = 10
"""What the run may spend, and the project: a reply costs one."""
AGENTS = 4
TOGETHER = """\
name: together
budget_usd: 0.1
defaults: {agent: coder, gate: none, max_attempts: 1}
tasks:
  a: {prompt: "Go"}
  b: {prompt: "Go"}
  c: {prompt: "Go"}
  d: {prompt: "Go"}
"""
SLOW = """\
rules:
  - when: {prompt: "Go|interrupted|Go on|go on"}
    turns:
      - {tools: [{Bash: {command: "echo 1 > 1.txt"}}], usage: {input_tokens: 2000}, delay: 300ms}
      - {tools: [{Bash: {command: "echo 2 > 2.txt"}}], usage: {input_tokens: 2000}, delay: 300ms}
      - {tools: [{Bash: {command: "echo 3 > 3.txt"}}], usage: {input_tokens: 2000}, delay: 300ms}
      - {tools: [{Bash: {command: "echo 4 > 4.txt"}}], usage: {input_tokens: 2000}, delay: 300ms}
      - {say: "All four.", usage: {input_tokens: 2000}, delay: 300ms}
"""


@pytest.fixture
def api(place: Place) -> Iterator["subprocess.Popen[str]"]:
    """A rehearsal that stands for the real API: it outlives whoever leads, and says what it has answered."""
    place.write("served.yml", SLOW)
    server = place.start("rehearse", "serve", "../served.yml", "--json")
    try:
        yield server
    finally:
        if server.poll() is None:
            server.terminate()
            server.communicate()


def answered(server: "subprocess.Popen[str]", count: int) -> list[dict[str, Any]]:
    """Return the next *count* requests that *server* has answered."""
    assert server.stdout is not None
    return [json.loads(server.stdout.readline()) for _ in range(count)]


def test_two_budgets_that_parallel_agents_use_up_at_once_hold_over_kill_9(place: Place, api: "subprocess.Popen[str]") -> None:
    place.write("workflow.yml", TOGETHER)
    project = place.repository / ".kapelle" / "project.yml"
    before = project.read_text(encoding="utf-8") if project.exists() else ""
    assert "budgets:" not in before
    project.write_text(f"{before}\nbudgets: {{project: {{usd: {CENTS / 100}}}}}\n", encoding="utf-8")
    place.git("commit", "-q", "-am", "budgets")
    address = json.loads(until(api, "address"))["address"]
    env = {
        "ANTHROPIC_BASE_URL": address,
        "ANTHROPIC_API_KEY": "sk-planted",
        "KAPELLE_PRICES": str(place.write("prices.json", PRICED)),
        "KAPELLE_SLOTS": str(AGENTS),
    }
    leader = place.start("run", "../workflow.yml", env=env)
    served = answered(api, 5)
    # Others are on their way.
    leader.kill()
    leader.communicate()
    leader = place.start("resume", env=env)
    try:
        said = "".join(until(leader, "waits for you: kapelle answer") for _ in range(2))
        assert "raise AMOUNT" in said
        items = settled(place)
        assert sorted(item["name"] for item in items) == ["project shop", "run together"]
        spent, lost = ledger(place)
        # In all, those included that the first leader knew only as on their way, which are booked with what they would
        # probably have cost; at most what was on its way at the end is too much.
        assert booked(place) >= CENTS - 0.01
        assert spent + lost <= CENTS + AGENTS
        for item in items:
            assert place.run("answer", item["id"], "raise", "10", env=env).code == 0
        rest, _ = leader.communicate(timeout=240)
    finally:
        leader.kill()
        leader.communicate()
    assert leader.returncode == 0, rest
    assert [event["number"] for event in events(place, "attempt.started")] == [1] * AGENTS
    assert len(events(place, "budget.asked")) == 2
    api.terminate()
    out, _ = api.communicate()
    served += [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    real = sum("status=200" in each["request"] and "input_tokens=2000" in each["request"] for each in served)
    spent, lost = ledger(place)
    # What was answered is booked once, to the cent; what was on its way when the leader died was answered or was not.
    assert spent <= real <= spent + lost
    assert lost <= AGENTS
    calls = usage_of(place)
    assert calls["model_calls"] == spent + lost
    assert real * 2000 >= spent * 2000 == sum(call["input"] for call in ok(place))


def ok(place: Place) -> list[dict[str, Any]]:
    return [{"input": event["usage"]["input_tokens"]} for event in events(place, "model.called") if not event["error"]]


def ledger(place: Place) -> tuple[int, int]:
    """Return how many cents were booked as answered, and how many calls as lost."""
    with closing(sqlite3.connect(place.home / "store.db")) as store:
        rows = store.execute("select error, cost_usd, status from calls where settled = 1").fetchall()
    cents = [round(cost * 100, 6) for error, cost, status in rows if not error and status == 200]
    assert set(cents) <= {1.0}, cents
    return len(cents), sum(1 for error, *_ in rows if error == "lost")


def booked(place: Place) -> float:
    """Return how many cents were booked in all."""
    with closing(sqlite3.connect(place.home / "store.db")) as store:
        return float(store.execute("select sum(cost_usd) * 100 from calls where settled = 1").fetchone()[0])


def usage_of(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = place.run("usage", "--json").json["total"]
    return found


def settled(place: Place) -> list[dict[str, Any]]:
    """Return the inbox once every task waits, but for those that were done before the rest had used up the budget."""
    process = place.start("events", "--follow", "--json")
    try:
        waiting: set[str] = set()
        done = 0
        for line in process.stdout or ():
            event = json.loads(line)
            if event["kind"] == "task.waited" and event["task_id"] is not None:
                (waiting.add if event["waits_for"] == "budget" else waiting.discard)(event["task_id"])
            done += event["kind"] == "task.completed"
            if len(waiting) + done == AGENTS:
                break
    finally:
        process.terminate()
        process.communicate()
    found: list[dict[str, Any]] = place.run("inbox", "--json").json
    return found
