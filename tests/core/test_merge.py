"""The order of the merge queue."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.ids import AttemptId, ChangeId, RunId, TaskId
from kapelle.core.merge import Change, ChangeState, order
from kapelle.core.task import Priority, rank

quick = settings(max_examples=100, deadline=None)
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def _change(name: str, priority: Priority = Priority.NORMAL, minute: int = 0) -> Change:
    ready_at = T0 + timedelta(minutes=minute)
    return Change(
        change_id=ChangeId(name),
        run_id=RunId("r"),
        task_id=TaskId(f"t-{name}"),
        attempt_id=AttemptId(f"a-{name}"),
        repository="/repo",
        target="main",
        base="b",
        head="h",
        tree="t",
        rank=rank(ready_at, priority),
        ready_at=ready_at,
    )


changes = st.lists(
    st.builds(
        _change, name=st.text("abcdef", min_size=1, max_size=6), priority=st.sampled_from(Priority), minute=st.integers(0, 3)
    ),
    max_size=12,
    unique_by=lambda change: change.change_id,
)


def _names(changes: Sequence[Change]) -> list[str]:
    return [change.change_id for change in changes]


def test_what_was_ready_first_is_merged_first() -> None:
    assert _names(order([_change("late", minute=2), _change("early", minute=1)])) == ["early", "late"]


def test_a_higher_priority_is_merged_before_what_was_ready_earlier() -> None:
    queue = [_change("normal"), _change("urgent", Priority.CRITICAL, minute=90), _change("low", Priority.LOW)]
    assert _names(order(queue)) == ["urgent", "normal", "low"]


def test_a_change_that_waited_long_is_merged_before_a_higher_priority() -> None:
    assert _names(order([_change("high", Priority.HIGH, minute=31), _change("patient")])) == ["patient", "high"]


def test_only_what_is_queued_is_in_the_queue() -> None:
    queue = [replace(_change(state.value), state=state) for state in ChangeState]
    assert _names(order(queue)) == ["queued"]


@quick
@given(queue=changes, data=st.data())
def test_the_order_does_not_depend_on_how_the_changes_are_read(queue: list[Change], data: st.DataObject) -> None:
    assert order(data.draw(st.permutations(queue))) == order(queue)


@quick
@given(queue=changes)
def test_every_queued_change_has_one_place(queue: list[Change]) -> None:
    found = order(queue)
    assert sorted(_names(found)) == sorted(_names(queue))
    assert [change.rank for change in found] == sorted(change.rank for change in queue)


@quick
@given(queue=changes)
def test_a_change_that_leaves_does_not_move_the_others(queue: list[Change]) -> None:
    found = order(queue)
    assert order(found[1:]) == found[1:]
