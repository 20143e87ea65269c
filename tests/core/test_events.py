"""Events: every kind has one stable name and one class."""

import inspect
import re
from dataclasses import FrozenInstanceError, fields, is_dataclass
from importlib import import_module

import pytest

from kapelle.core import (
    account_events,
    batch_events,
    brake_events,
    events,
    isolation_events,
    liveness_events,
    pool_events,
    rule_events,
    secret_events,
    steering_events,
)
from kapelle.core.events import KINDS, MOVED, Event, TaskMoved
from kapelle.core.task import TASK_TRANSITIONS, TaskState

CLASSES = [
    value
    for module in (
        events,
        account_events,
        batch_events,
        brake_events,
        isolation_events,
        liveness_events,
        pool_events,
        rule_events,
        secret_events,
        steering_events,
    )
    for value in vars(module).values()
    if inspect.isclass(value) and issubclass(value, Event) and value is not Event and value.__module__ == module.__name__
]
each_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


def test_every_event_is_known_by_its_kind_exactly_once() -> None:
    assert sorted(kind.__name__ for kind in KINDS.values()) == sorted(kind.__name__ for kind in CLASSES)
    assert len({kind.kind for kind in CLASSES}) == len(CLASSES)


@each_class
def test_a_kind_names_the_class_that_the_module_exports(kind: type[Event]) -> None:
    # With slots a dataclass is made anew: an event read from the log must be of the class that people import.
    assert KINDS[kind.kind] is kind
    assert getattr(import_module(kind.__module__), kind.__name__) is kind


@each_class
def test_an_event_is_a_frozen_keyword_only_value_with_a_name_of_its_own(kind: type[Event]) -> None:
    assert is_dataclass(kind)
    with pytest.raises(FrozenInstanceError):
        kind.__setattr__(object.__new__(kind), fields(kind)[0].name, None)
    assert "__slots__" in vars(kind)
    assert all(field.kw_only for field in fields(kind))
    assert "kind" in vars(kind), "a kind is never inherited"
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", kind.kind)
    assert kind.__doc__


def test_there_is_an_event_for_every_state_a_task_can_move_to() -> None:
    assert set(MOVED) == set(TaskState)
    assert {state for ways in TASK_TRANSITIONS.values() for state in ways} <= set(MOVED)


def test_every_move_of_a_task_has_an_event_of_its_own() -> None:
    moves = [kind for kind in CLASSES if issubclass(kind, TaskMoved) and kind is not TaskMoved]
    assert sorted(kind.kind for kind in MOVED.values()) == sorted(kind.kind for kind in moves)


@pytest.mark.parametrize("state", list(TaskState))
def test_a_move_says_where_the_task_was(state: TaskState) -> None:
    event = MOVED[state](before=TaskState.RUNNING)
    assert event.before is TaskState.RUNNING
    assert event.kind.startswith("task.")


@pytest.mark.parametrize("state", [TaskState.COMPLETED, TaskState.SKIPPED, TaskState.FAILED, TaskState.CANCELLED])
def test_the_event_of_an_end_is_called_like_the_state(state: TaskState) -> None:
    assert MOVED[state].kind == f"task.{state.value}"
