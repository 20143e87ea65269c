"""Budgets in the files of a user, and what was spent as `kapelle usage` tells it."""

import csv
import io
import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from kapelle.testing.places import Place

PROJECT = """\
limits: {budget: {usd: 20, tokens: 5M}}
budgets:
  project: {usd: 500, per: month}
  account: {turns: 20k, cached_tokens: 3M}
  day: {usd: 60, time: 90m}
"""
FLOW = """\
name: flow
budget_usd: 5
defaults: {agent: script, gate: none, budget_usd: 2, budget: {turns: 60, time: 1h}}
tasks:
  one: {prompt: "true"}
  two: {prompt: "true", budget_usd: 0.5, budget: {turns: 3}}
  three: {prompt: "true", budget: {usd: 0.25, cached_tokens: 1.5M}}
"""
NOON = 1_772_366_400_000_000
"""2026-03-01 12:00 UTC, in microseconds."""
HOUR = 3_600_000_000
LOGIN = "login@https://api.example.org"


def submitted(place: Place, flow: str = FLOW) -> dict[str, Any]:
    place.write("flow.yml", flow)
    answer = place.run("submit", "../flow.yml")
    assert answer.code == 0, answer.err
    with closing(sqlite3.connect(place.home / "store.db")) as store:
        (spec,) = store.execute("select spec from run_specs order by rowid desc limit 1").fetchone()
    return json.loads(spec)


def bounds(budget: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in budget.items() if value is not None}


def test_budgets_of_all_files_come_together(place: Place) -> None:
    (place.repository / ".kapelle" / "project.yml").write_text(PROJECT, encoding="utf-8")
    spec = submitted(place)
    assert bounds(spec["limits"]["budget"]) == {"usd": 5.0, "tokens": 5_000_000}
    assert [(each["scope"], each["per"], bounds(each["allowance"])) for each in spec["limits"]["standing"]] == [
        ("project", "month", {"usd": 500.0}),
        ("account", "ever", {"cached_tokens": 3_000_000, "turns": 20_000}),
        ("day", "day", {"usd": 60.0, "time": "PT1H30M"}),
    ]
    assert {task["name"]: bounds(task["budget"]) for task in spec["tasks"]} == {
        "one": {"usd": 2.0, "turns": 60, "time": "PT1H"},
        "two": {"usd": 0.5, "turns": 3, "time": "PT1H"},
        "three": {"usd": 0.25, "cached_tokens": 1_500_000, "turns": 60, "time": "PT1H"},
    }


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        ("name: x\ntasks: {a: {agent: script, prompt: x, budget_usd: 1, budget: {usd: 2}}}\n", "are the same"),
        ("name: x\nbudget: {usd: 2}\nbudget_usd: 1\ntasks: {a: {agent: script, prompt: x}}\n", "are the same"),
        (
            "name: x\ntasks: {a: {agent: script, prompt: x, budget: {tokens: lots}}}\n",
            "is no number → write it as 2000000 or 2M",
        ),
        ("name: x\ntasks: {a: {agent: script, prompt: x, budget: {turns: 0}}}\n", "write more than 0"),
        ("name: x\ntasks: {a: {agent: script, prompt: x, budget: {money: 1}}}\n", "money"),
    ],
)
def test_a_budget_that_is_none_is_told_with_its_place(place: Place, flow: str, said: str) -> None:
    place.write("flow.yml", flow)
    answer = place.run("run", "../flow.yml")
    assert answer.code == 2
    assert said in " ".join(answer.err.split())
    assert place.runs() == 0


# --- What was spent ---


@pytest.fixture
def spent(place: Place) -> Place:
    spec = submitted(place)
    assert spec["name"] == "flow"
    with closing(sqlite3.connect(place.home / "store.db")) as store, store:
        (run_id,) = store.execute("select run_id from runs").fetchone()
        tasks = dict(store.execute("select name, task_id from tasks").fetchall())
        calls = [
            ("one", "opus", 10, 1.0, NOON, "shop", "env:KEY@https://api.example.org", 1),
            ("one", "opus", 20, 2.0, NOON + HOUR, "shop", "env:KEY@https://api.example.org", 1),
            ("two", "=haiku", 30, 0.5, NOON + 24 * HOUR, "shop", LOGIN, 1),
            ("two", "=haiku", 99, 9.5, NOON + 24 * HOUR, "shop", LOGIN, 0),
        ]
        for number, (task, model, tokens, usd, at, project, account, settled) in enumerate(calls):
            store.execute(
                "insert into calls (call_id, agent_id, run_id, task_id, attempt_id, model, input_tokens, output_tokens,"
                " cache_read_tokens, cache_write_tokens, cost_usd, status, seconds, error, priced, at, project, account_id,"
                " settled) values (?, 'g', ?, ?, 'a', ?, ?, 1, 100, 2, ?, 200, 1.5, '', 1, ?, ?, ?, ?)",
                (f"m{number}", run_id, tasks[task], model, tokens, usd, at, project, account, settled),
            )
    return place


def lines(place: Place, *arguments: str) -> dict[str, tuple[float, int]]:
    answer = place.run("usage", *arguments, "--json")
    assert answer.code == 0, answer.err
    return {line["name"]: (line["cost_usd"], line["model_calls"]) for line in answer.json["lines"]}


def test_what_was_spent_is_told_by_whatever_is_asked_for(spent: Place) -> None:
    # A call that is on its way counts when it has ended. Another account is another line.
    assert spent.run("usage", "--json").json["total"]["cost_usd"] == 3.5
    assert lines(spent, "--by", "task") == {"flow/one": (3.0, 2), "flow/two": (0.5, 1)}
    assert lines(spent, "--by", "model") == {"opus": (3.0, 2), "=haiku": (0.5, 1)}
    assert lines(spent, "--by", "day") == {"2026-03-01": (3.0, 2), "2026-03-02": (0.5, 1)}
    assert lines(spent, "--by", "agent") == {"(not known)": (0.5, 1)}
    assert lines(spent, "flow", "--by", "account") == {"env:KEY@https://api.example.org": (3.0, 2), LOGIN: (0.5, 1)}
    assert lines(spent, "--by", "day", "--since", "2026-03-01T12:30", "--until", "2026-03-02") == {"2026-03-01": (2.0, 1)}
    assert lines(spent, "--since", "1h") == {}


def test_a_table_says_what_a_subscription_pays(spent: Place) -> None:
    said = spent.run("usage", "--by", "model").out
    assert "3 calls · 69 tokens · 300 cached · $3.50 · 4.5s of model time" in said
    assert "$0.50 of it is notional: a subscription pays, whatever the calls would cost" in said
    assert spent.run("usage", "--until", "2020-01-01").out == "Nothing was spent.\n"


def test_comma_separated_values_are_harmless_in_a_spreadsheet(spent: Place) -> None:
    rows = list(csv.DictReader(io.StringIO(spent.run("usage", "--by", "model", "--csv").out, newline="")))
    assert [(row["name"], row["cost_usd"], row["paid"]) for row in rows] == [
        ("opus", "3.0", "money"),
        ("'=haiku", "0.5", "subscription"),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "nonsense"), "'nonsense' is no time"),
        (("--by", "colour"), "colour"),
        (("--csv", "--json"), "give either --csv or --json"),
        (("nowhere",), "nothing has the id or the name nowhere"),
    ],
)
def test_what_cannot_be_asked_is_told(spent: Place, arguments: tuple[str, ...], said: str) -> None:
    answer = spent.run("usage", *arguments)
    assert answer.code in {1, 2}
    assert said in answer.err + answer.out
