from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kapelle.core.agent import AgentConfig, PoolRules
from kapelle.core.budget import Allowance
from kapelle.core.gateway import Upstream
from kapelle.core.pool import Stock, asked_for, fit_of, make_of, plan, suits
from kapelle.core.run import RunSpec, WorkspaceRules
from kapelle.core.task import TaskSpec, WorkspaceKind

NOW = datetime(2026, 3, 1, tzinfo=UTC)
some = st.integers(min_value=0, max_value=8)


@st.composite
def stocks(draw: st.DrawFn) -> list[Stock]:
    found: list[Stock] = []
    for number in range(draw(st.integers(min_value=1, max_value=4))):
        warm, least = draw(some), draw(some)
        most = draw(st.none() | st.integers(min_value=max(warm, least, 1), max_value=12))
        rules = PoolRules(warm=warm, least=least, most=most, idle=timedelta(minutes=draw(some)))
        stock = Stock(
            fit=f"fit-{number}",
            rules=rules,
            wanted=draw(st.none() | some),
            at_work=draw(some),
            spares=draw(some),
            waiting=draw(some),
            coming=draw(some),
        )
        over = stock.spares > asked_for(stock)
        since = NOW - timedelta(minutes=draw(some)) if over else None
        found.append(replace(stock, quiet_since=since))
    return found


carries = st.none() | some


@given(stocks(), carries)
def test_no_more_are_started_than_the_host_can_carry(there: list[Stock], carry: int | None) -> None:
    planned = plan(there, carry, NOW)
    started = sum(max(planned[stock.fit] - stock.spares, 0) for stock in there)
    assert carry is None or started <= carry


@given(stocks(), carries)
def test_no_more_are_started_than_are_asked_for(there: list[Stock], carry: int | None) -> None:
    planned = plan(there, carry, NOW)
    for stock in there:
        assert planned[stock.fit] <= max(stock.spares, asked_for(stock))
        assert planned[stock.fit] >= 0


@given(stocks())
def test_the_most_there_may_be_holds_for_those_at_work_and_spare_together(there: list[Stock]) -> None:
    planned = plan(there, None, NOW)
    for stock in there:
        if stock.wanted is None and stock.rules.most is not None:
            assert planned[stock.fit] <= max(stock.rules.most - stock.at_work, 0)


@given(stocks())
def test_where_the_host_carries_all_there_are_as_many_as_are_asked_for(there: list[Stock]) -> None:
    planned = plan(there, None, NOW)
    for stock in there:
        assert planned[stock.fit] >= asked_for(stock)


@given(stocks(), carries)
def test_what_a_person_wants_holds_at_once(there: list[Stock], carry: int | None) -> None:
    planned = plan(there, carry, NOW)
    for stock in there:
        if stock.wanted is not None:
            assert planned[stock.fit] <= max(stock.wanted - stock.at_work, 0)


@given(stocks())
def test_what_is_spare_stays_as_long_as_its_rules_say(there: list[Stock]) -> None:
    planned = plan(there, None, NOW)
    for stock in there:
        fresh = stock.quiet_since is not None and NOW - stock.quiet_since < stock.rules.idle
        within = stock.rules.most is None or stock.at_work + stock.spares <= stock.rules.most
        if fresh and within and stock.wanted is None:
            assert planned[stock.fit] == stock.spares


def test_without_a_most_spares_do_not_follow_the_queue() -> None:
    assert asked_for(Stock(fit="a", rules=PoolRules(warm=1), waiting=5, coming=5)) == 1
    assert asked_for(Stock(fit="a", rules=PoolRules(warm=1, most=4), at_work=1, waiting=5)) == 3
    assert asked_for(Stock(fit="a", rules=PoolRules(least=3), at_work=1)) == 2


CODER = AgentConfig(name="coder")
SPEC = RunSpec(name="one", repository="/r", target="main", tasks=(TaskSpec(name="a"),), configs=(CODER,))


def test_runs_that_differ_only_in_what_an_agent_is_not_started_by_share_spares() -> None:
    rehearsed = Upstream(rehearsal="/a.yml", log="/a.log")
    other = replace(SPEC, name="two", tasks=(TaskSpec(name="b"),), upstream=rehearsed)
    again = replace(SPEC, upstream=Upstream(rehearsal="/b.yml", log="/b.log"))
    assert _fit(other) == _fit(again)


def test_runs_that_differ_in_what_an_agent_is_started_by_do_not() -> None:
    changes: list[dict[str, Any]] = [
        {"target": "dev"},
        {"repository": "/other"},
        {"workspace": WorkspaceRules(setup=("make",))},
        {"configs": (AgentConfig(name="coder", model="big"),)},
        {"upstream": Upstream(credential="env:KEY")},
        {"upstream": Upstream(bypass=True)},
        {"project": "else"},
    ]
    fits = {_fit(replace(SPEC, **change)) for change in changes}
    assert len({*fits, _fit(SPEC)}) == len(changes) + 1


def test_outside_of_a_repository_nothing_is_started_beforehand() -> None:
    assert make_of(replace(SPEC, repository=None), "coder") is None


def test_tasks_whose_agent_is_told_more_at_its_start_get_one_of_their_own() -> None:
    gateway, bypass = Upstream(), Upstream(bypass=True)
    assert suits(TaskSpec(name="a"), gateway)
    assert not suits(TaskSpec(name="a", result_schema="{}"), gateway)
    assert not suits(TaskSpec(name="a", workspace=WorkspaceKind.SCRATCH), gateway)
    assert suits(TaskSpec(name="a", budget=Allowance(usd=1.0)), gateway)
    assert not suits(TaskSpec(name="a", budget=Allowance(usd=1.0)), bypass)


def _fit(spec: RunSpec) -> str:
    made = make_of(spec, "coder")
    assert made is not None
    return fit_of(made)
