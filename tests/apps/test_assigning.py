"""Which agents a task of a workflow may be given to, and what is said where none can do it."""

from datetime import timedelta
from typing import Any

import pytest

from kapelle.apps import models
from kapelle.apps.assigning import assigned, misassigned

AGENTS = {
    "coder": {"capabilities": ["backend"], "technologies": ["python"]},
    "tester": {"capabilities": ["tests"], "technologies": ["python"]},
    "writer": {"capabilities": ["docs"]},
}
RULES = {
    "backend": ["coder", "tester"],
    "name:test-*": "tester",
    "phase:review": ["tester", "writer"],
    "writes:docs/**": "writer",
}


def _agents(**changes: Any) -> models.Agents:
    return models.Agents.model_validate({"agents": AGENTS, "assignment_rules": RULES} | changes)


def _assigned(name: str = "api", default: str | None = None, **task: Any) -> tuple[tuple[str, ...], list[str]]:
    found, wrong = assigned(name, models.Task.model_validate({"prompt": "do it", **task}), default, _agents())
    return found, [mistake.message for mistake in wrong]


@pytest.mark.parametrize(
    ("task", "agents"),
    [
        ({"agent": "writer", "kind": "backend"}, ("writer",)),
        ({"kind": "backend"}, ("coder", "tester")),
        ({"kind": "docs"}, ("writer",)),
        ({"name": "test-api", "phase": "review"}, ("tester",)),
        ({"phase": "review"}, ("tester", "writer")),
        ({"writes": ["docs/a.md", "docs/b/c.md"]}, ("writer",)),
        ({"writes": ["docs/a.md", "src/a.py"], "default": "coder"}, ("coder",)),
        ({"requires": "python"}, ("coder", "tester")),
        ({"requires": "python", "default": "tester"}, ("tester", "coder")),
        ({"requires": ["python", "tests"]}, ("tester",)),
        ({"requires": "python", "phase": "review"}, ("tester",)),
        ({"default": "writer"}, ("writer",)),
        ({}, ()),
    ],
)
def test_a_task_goes_to_the_agents_that_are_named_for_it_and_can_do_it(task: dict[str, Any], agents: tuple[str, ...]) -> None:
    assert _assigned(**task) == (agents, [])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            {"requires": ["python", "docs"]},
            "api requires python, docs, and no agent has all of it: coder lacks docs; tester lacks docs; writer lacks python",
        ),
        (
            {"agent": "coder", "requires": "tests"},
            "api requires tests, and its agent has not all of it: coder lacks tests",
        ),
        (
            {"kind": "backend", "requires": "docs"},
            "api requires docs, and no agent of the assignment rule backend has all of it: coder lacks docs; tester lacks docs",
        ),
        ({"kind": "frontend"}, "no agent is assigned to tasks of the kind frontend"),
    ],
)
def test_where_no_agent_can_do_it_it_is_told_what_each_of_them_lacks(task: dict[str, Any], message: str) -> None:
    assert _assigned(**task)[1] == [message]


def test_a_word_that_nobody_has_is_probably_misspelt() -> None:
    _, (mistake,) = assigned("api", models.Task(prompt="x", requires=["pyton"], timeout=timedelta(minutes=1)), None, _agents())
    assert mistake.advice == "write python; or add what is missing to the capabilities of an agent in .kapelle/agents.yml"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"files:x": ["coder"]}, "files:x is no assignment rule"),
        ({"name:": ["coder"]}, "name: is no assignment rule"),
        ({"backend": ["coda"]}, "the assignment rule backend names coda, which is no agent here"),
        ({"backend": []}, "the assignment rule backend names no agent"),
    ],
)
def test_an_assignment_rule_that_means_nothing_is_a_mistake(rules: dict[str, list[str]], message: str) -> None:
    assert [mistake.message for mistake in misassigned(_agents(assignment_rules=rules))] == [message]
