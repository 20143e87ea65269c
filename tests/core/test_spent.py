"""Budgets that are spent: whom they hold up, and what raising them does."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.budget import Allowance, Budget, Period, Resource, Scope, StandingBudget, began, ends, past, standing_key
from kapelle.core.errors import IllegalTransition
from kapelle.core.ids import RunId, SpentId, TaskId
from kapelle.core.spent import (
    SPENT_TRANSITIONS,
    SpentBudget,
    SpentState,
    in_the_way,
    raised,
    raises_of,
    settle,
    told,
)

quick = settings(max_examples=150, deadline=None)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = ("task:t-1", "run:r-1", "project:shop")
amounts = st.integers(1, 50).map(float)
allowances = st.builds(
    Allowance,
    usd=st.none() | amounts,
    tokens=st.none() | st.integers(1, 50),
    cached_tokens=st.none() | st.integers(1, 50),
    turns=st.none() | st.integers(1, 50),
    time=st.none() | st.integers(1, 50).map(lambda seconds: timedelta(seconds=seconds)),
)
budgets = st.builds(Budget, key=st.sampled_from(KEYS), name=st.just("it"), allowance=allowances)
rows = st.builds(
    SpentBudget,
    spent_id=st.uuids().map(lambda found: SpentId(f"b-{found}")),
    key=st.sampled_from(KEYS),
    resource=st.sampled_from(Resource),
    name=st.just("it"),
    run_id=st.just(RunId("r-1")),
    task_id=st.just(TaskId("t-1")),
    limit=amounts,
    spent=amounts,
    state=st.sampled_from(SpentState),
    more=amounts,
    asked_at=st.just(NOON),
)


def row(**changes: object) -> SpentBudget:
    values: dict[str, object] = {
        "spent_id": SpentId("b-1"),
        "key": "run:r-1",
        "resource": Resource.USD,
        "name": "run shop",
        "run_id": RunId("r-1"),
        "task_id": TaskId("t-1"),
        "limit": 5.0,
        "spent": 5.5,
        "asked_at": NOON,
    }
    return SpentBudget(**(values | changes))  # pyright: ignore[reportArgumentType]


@quick
@given(found=st.lists(rows, max_size=6), its=st.lists(budgets, max_size=3, unique_by=lambda budget: budget.key))
def test_whoever_has_nothing_left_under_a_budget_that_is_not_raised_waits(found: list[SpentBudget], its: list[Budget]) -> None:
    raises = raises_of(found)
    limits = {(budget.key, resource): limit for budget in its for resource, limit in budget.allowance.limits()}
    held = {
        entry.spent_id
        for entry in found
        if entry.state in {SpentState.OPEN, SpentState.STOPPED}
        and (entry.key, entry.resource) in limits
        and entry.spent >= limits[entry.key, entry.resource] + raises.get((entry.key, entry.resource), 0.0)
    }
    said = in_the_way(found, its, raises)
    assert {entry.spent_id for entry in said} == held
    stopped = [entry.state is SpentState.STOPPED for entry in said]
    assert stopped == sorted(stopped, reverse=True)


@quick
@given(budget=budgets, found=st.lists(rows, max_size=6))
def test_a_raise_adds_to_what_is_bounded_and_bounds_nothing_else(budget: Budget, found: list[SpentBudget]) -> None:
    raises = raises_of(found)
    before, after = dict(budget.allowance.limits()), dict(raised(budget, raises).allowance.limits())
    assert before.keys() == after.keys()
    for resource, limit in before.items():
        assert after[resource] == pytest.approx(limit + raises.get((budget.key, resource), 0.0))


@quick
@given(found=st.lists(rows, max_size=6))
def test_what_was_said_twice_counts_twice(found: list[SpentBudget]) -> None:
    total = sum(raises_of(found).values())
    assert total == pytest.approx(sum(entry.more for entry in found if entry.state is SpentState.RAISED))


@pytest.mark.parametrize("before", list(SpentState))
@pytest.mark.parametrize("after", list(SpentState))
def test_a_spent_budget_is_settled_once(before: SpentState, after: SpentState) -> None:
    if after in SPENT_TRANSITIONS[before]:
        settled = settle(row(state=before), after, NOON, more=1.0, by="person:you", note="why")
        assert (settled.state, settled.answered_by, settled.settled_at) == (after, "person:you", NOON)
        assert (settled.over_at is not None) is (after is SpentState.WITHDRAWN)
    else:
        with pytest.raises(IllegalTransition):
            settle(row(state=before), after, NOON)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "the budget of run shop is spent ($5.50 of $5.00): kapelle answer b-1 raise AMOUNT, or stop"),
        (
            {"state": SpentState.STOPPED, "answered_by": "person:you", "note": "enough"},
            "the budget of run shop is spent ($5.50 of $5.00), and person:you said stop: enough",
        ),
        ({"state": SpentState.STOPPED}, "the budget of run shop is spent ($5.50 of $5.00), and nobody raised it in time"),
    ],
)
def test_people_are_told_why_and_what_to_do(changes: dict[str, object], said: str) -> None:
    assert told(row(**changes)) == said


@quick
@given(now=st.datetimes(datetime(1000, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)), per=st.sampled_from(Period))  # noqa: DTZ001
def test_a_period_ends_when_the_next_one_begins_and_what_was_of_it_is_past(now: datetime, per: Period) -> None:
    standing = StandingBudget(scope=Scope.PROJECT, allowance=Allowance(), per=per)
    end, key = ends(per, now), standing_key(standing, "a@2026-01-01/day b", now)
    assert not past(key, now)
    if end is None:
        assert per is Period.EVER
        assert not past(key, now + timedelta(days=1))
        return
    assert now < end
    assert began(per, end) == end
    assert began(per, end - timedelta(microseconds=1)) == began(per, now)
    assert past(key, end)
