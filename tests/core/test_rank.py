"""Places in queues: by priority and waiting time, so that nothing starves."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.dispatch import Demand, Room, place
from kapelle.core.ids import RunId, TaskId
from kapelle.core.placing import Choice, HostRoom
from kapelle.core.task import BONUS, NEAR, Priority, rank

quick = settings(max_examples=100, deadline=None)
T0 = datetime(2026, 1, 1, tzinfo=UTC)
priorities = st.sampled_from(Priority)
waits = st.timedeltas(timedelta(0), timedelta(days=30))
LONGEST_HEAD_START = BONUS[Priority.CRITICAL] - BONUS[Priority.LOW]


def test_every_priority_has_a_bonus_and_a_higher_one_has_more() -> None:
    assert list(BONUS) == list(Priority)
    assert list(BONUS.values()) == sorted(set(BONUS.values()))


@quick
@given(priority=priorities, wait=waits)
def test_of_the_same_priority_the_one_that_waits_longer_goes_first(priority: Priority, wait: timedelta) -> None:
    assert rank(T0, priority) <= rank(T0 + wait, priority)


@pytest.mark.parametrize(
    ("priority", "head_start"), [(Priority.HIGH, timedelta(minutes=30)), (Priority.CRITICAL, timedelta(hours=6))]
)
def test_a_priority_is_a_head_start_in_waiting_time(priority: Priority, head_start: timedelta) -> None:
    normal = rank(T0, Priority.NORMAL)
    assert (
        rank(T0 + head_start - timedelta(seconds=1), priority) < normal < rank(T0 + head_start + timedelta(seconds=1), priority)
    )


@quick
@given(mine=priorities, theirs=priorities, later=waits)
def test_whatever_comes_later_than_the_longest_head_start_comes_after(
    mine: Priority, theirs: Priority, later: timedelta
) -> None:
    assert rank(T0, mine) < rank(T0 + LONGEST_HEAD_START + timedelta(seconds=1) + later, theirs)


@settings(max_examples=25, deadline=None)
@given(mine=priorities, theirs=st.lists(priorities, min_size=1, max_size=20))
def test_no_task_starves_under_a_stream_of_others(mine: Priority, theirs: list[Priority]) -> None:
    # One slot, one task a minute through it, and each minute a new task comes: the backlog never shrinks.
    waiting = {TaskId("mine"): rank(T0, mine)}
    bound = int(LONGEST_HEAD_START.total_seconds() // 60) + 2
    for minute in range(bound):
        at = T0 + timedelta(minutes=minute)
        waiting[TaskId(f"other-{minute}")] = rank(at, theirs[minute % len(theirs)])
        demands = [
            Demand(task_id=name, run_id=RunId("r"), rank=its, choices=(Choice(config="dev"),)) for name, its in waiting.items()
        ]
        placed, _ = place(demands, Room(hosts=(HostRoom(name="here", slots=1),)))
        del waiting[placed[0].task_id]
        if "mine" not in waiting:
            return
    pytest.fail(f"the task of {mine} priority had no turn within {bound} minutes")


@quick
@given(one=waits, other=waits)
def test_of_equals_the_one_with_the_longer_critical_path_goes_first_and_by_less_than_a_minute(
    one: timedelta, other: timedelta
) -> None:
    first, second = rank(T0, Priority.NORMAL, one), rank(T0, Priority.NORMAL, other)
    assert (first <= second) if one >= other else (first >= second)
    assert rank(T0, Priority.NORMAL) - NEAR < first <= rank(T0, Priority.NORMAL)
