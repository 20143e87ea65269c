"""The tables of states: what is not in a table does not exist."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest

from kapelle.core import agent as agents
from kapelle.core import run as runs
from kapelle.core.agent import AGENT_TRANSITIONS, Agent, AgentState
from kapelle.core.errors import IllegalTransition
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId
from kapelle.core.run import RUN_TERMINAL, RUN_TRANSITIONS, Run, RunSpec, RunState
from kapelle.core.task import MEETS_A_NEED, TASK_TRANSITIONS, TERMINAL, Task, TaskSpec, TaskState, Wait, advance

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
T1 = T0 + timedelta(minutes=5)

TASK = Task(task_id=TaskId("t-1"), run_id=RunId("r-1"), spec=TaskSpec(name="build"), rank=0.0, submitted_at=T0)
RUN = Run(run_id=RunId("r-1"), spec=RunSpec(name="run", tasks=(TASK.spec,)), submitted_at=T0)
AGENT = Agent(
    agent_id=AgentId("g-1"),
    run_id=RunId("r-1"),
    task_id=TaskId("t-1"),
    attempt_id=AttemptId("a-1"),
    term=1,
    config="dev",
    host="here",
    deadline_at=T1,
    created_at=T0,
)

Move = Callable[[Any, Any, datetime], Any]
# What moves, its states, the table, the terminal states, where it begins, how it is moved.
MACHINES: dict[str, tuple[Any, type[StrEnum], Mapping[Any, frozenset[Any]], frozenset[Any], Any, Move]] = {
    "task": (TASK, TaskState, TASK_TRANSITIONS, TERMINAL, TaskState.PENDING, advance),
    "run": (RUN, RunState, RUN_TRANSITIONS, RUN_TERMINAL, RunState.RUNNING, runs.move),
    "agent": (AGENT, AgentState, AGENT_TRANSITIONS, frozenset({AgentState.STOPPED}), AgentState.IDLE, agents.move),
}
each_machine = pytest.mark.parametrize("machine", MACHINES)
PAIRS = [
    pytest.param(name, before, after, id=f"{name}-{before}-{after}")
    for name, (_, states, _, _, _, _) in MACHINES.items()
    for before in states
    for after in states
]


@pytest.mark.parametrize(("machine", "before", "after"), PAIRS)
def test_a_transition_exists_exactly_when_it_is_in_the_table(machine: str, before: StrEnum, after: StrEnum) -> None:
    thing, _, table, _, _, move = MACHINES[machine]
    there = replace(thing, state=before)
    if after in table[before]:
        assert move(there, after, T1).state is after
    else:
        with pytest.raises(IllegalTransition, match=f"cannot go from {before} to {after}"):
            move(there, after, T1)


@each_machine
def test_the_table_speaks_of_every_state(machine: str) -> None:
    _, states, table, _, _, _ = MACHINES[machine]
    assert set(table) == set(states)


@each_machine
def test_exactly_the_terminal_states_have_no_way_out(machine: str) -> None:
    _, _, table, terminal, _, _ = MACHINES[machine]
    assert {state for state, ways in table.items() if not ways} == terminal


@each_machine
def test_no_state_goes_to_itself(machine: str) -> None:
    _, _, table, _, _, _ = MACHINES[machine]
    assert not [state for state, ways in table.items() if state in ways]


def _reachable(table: Mapping[Any, frozenset[Any]], start: Any) -> set[Any]:
    seen, todo = {start}, [start]
    while todo:
        for state in table[todo.pop()] - seen:
            seen.add(state)
            todo.append(state)
    return seen


@each_machine
def test_every_state_is_reached_from_the_first(machine: str) -> None:
    _, states, table, _, first, _ = MACHINES[machine]
    assert _reachable(table, first) == set(states)


@each_machine
def test_from_every_state_there_is_a_way_to_an_end(machine: str) -> None:
    _, states, table, terminal, _, _ = MACHINES[machine]
    assert not [state for state in states if not _reachable(table, state) & terminal]


def test_a_task_can_fail_or_be_cancelled_as_long_as_it_has_not_ended() -> None:
    for state in set(TaskState) - TERMINAL:
        assert {TaskState.FAILED, TaskState.CANCELLED} <= TASK_TRANSITIONS[state]


def test_a_task_is_completed_only_after_it_was_validated() -> None:
    before = {state for state, ways in TASK_TRANSITIONS.items() if TaskState.COMPLETED in ways}
    assert before == {TaskState.VALIDATING, TaskState.MERGING}


def test_only_a_task_that_has_not_begun_is_skipped() -> None:
    assert [state for state, ways in TASK_TRANSITIONS.items() if TaskState.SKIPPED in ways] == [TaskState.PENDING]


def test_only_what_has_ended_well_meets_a_need() -> None:
    assert {TaskState.COMPLETED, TaskState.SKIPPED} == MEETS_A_NEED
    assert MEETS_A_NEED <= TERMINAL


def test_a_task_that_moves_waits_for_nothing_any_more() -> None:
    waiting = replace(TASK, waits_for=Wait.RETRY, detail="in a minute", due_at=T1)
    moved = advance(waiting, TaskState.ASSIGNED, T1)
    assert (moved.waits_for, moved.detail, moved.due_at) == (None, "", None)


def test_a_task_starts_once_however_often_it_is_tried() -> None:
    first = advance(TASK, TaskState.ASSIGNED, T0)
    again = advance(advance(first, TaskState.PENDING, T0), TaskState.ASSIGNED, T1)
    assert again.started_at == T0


def test_a_task_that_is_skipped_never_started() -> None:
    skipped = advance(TASK, TaskState.SKIPPED, T1)
    assert (skipped.started_at, skipped.ended_at) == (None, T1)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_task_ends_at_the_time_it_ends(state: TaskState) -> None:
    before = replace(TASK, state=next(before for before, ways in TASK_TRANSITIONS.items() if state in ways))
    assert before.ended_at is None
    assert advance(before, state, T1).ended_at == T1


def test_a_run_has_an_end_when_it_has_ended_and_not_while_it_delivers() -> None:
    delivering = runs.move(RUN, RunState.DELIVERING, T0)
    assert delivering.ended_at is None
    assert runs.move(delivering, RunState.COMPLETED, T1).ended_at == T1


def test_an_agent_has_a_time_of_its_stop_when_it_is_stopped() -> None:
    active = agents.move(AGENT, AgentState.ACTIVE, T0)
    assert active.stopped_at is None
    assert agents.move(active, AgentState.STOPPED, T1).stopped_at == T1


def test_an_agent_can_be_stopped_from_wherever_it_is() -> None:
    assert all(AgentState.STOPPED in ways for state, ways in AGENT_TRANSITIONS.items() if state is not AgentState.STOPPED)


def test_what_is_moved_is_a_new_value_and_the_old_one_stays() -> None:
    advance(TASK, TaskState.ASSIGNED, T1)
    assert TASK.state is TaskState.PENDING


def test_the_name_of_a_task_is_that_of_its_spec() -> None:
    assert TASK.name == "build"


def test_the_token_of_an_agent_is_not_shown() -> None:
    hidden = "k-1234567890"
    assert hidden not in repr(replace(AGENT, token=hidden))
