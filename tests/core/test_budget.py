"""Tokens, prices and what may still be spent."""

from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.budget import (
    Allowance,
    Budget,
    Period,
    Price,
    Resource,
    Scope,
    Spend,
    StandingBudget,
    Usage,
    amount_told,
    began,
    cost_usd,
    exhausted,
    levels,
    nearly,
    price_of,
    standing_key,
)

quick = settings(max_examples=100, deadline=None)
counts = st.integers(0, 10**9)
usages = st.builds(Usage, input_tokens=counts, output_tokens=counts, cache_read_tokens=counts, cache_write_tokens=counts)
PRICE = Price(input=3, output=15, cache_read=0.3, cache_write=3.75)
CHEAP = Price(input=1, output=5, cache_read=0.1, cache_write=1.25)


@quick
@given(parts=st.lists(usages, max_size=8))
def test_tokens_are_added_kind_by_kind(parts: list[Usage]) -> None:
    total = reduce(add, parts, Usage())
    for field in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"):
        assert getattr(total, field) == sum(getattr(part, field) for part in parts)
    assert total.total == sum(part.total for part in parts)


@quick
@given(one=usages, other=usages)
def test_two_calls_cost_what_each_of_them_costs(one: Usage, other: Usage) -> None:
    assert cost_usd(one + other, PRICE) == pytest.approx(cost_usd(one, PRICE) + cost_usd(other, PRICE))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(input_tokens=1_000_000), 3),
        (Usage(output_tokens=1_000_000), 15),
        (Usage(cache_read_tokens=1_000_000), 0.3),
        (Usage(cache_write_tokens=1_000_000), 3.75),
        (Usage(input_tokens=1000, output_tokens=100), 0.0045),
        (Usage(), 0),
    ],
)
def test_each_kind_of_token_has_its_price_per_million(usage: Usage, expected: float) -> None:
    assert cost_usd(usage, PRICE) == pytest.approx(expected)


def test_spend_adds_tokens_money_and_calls() -> None:
    one = Spend(usage=Usage(input_tokens=1), cost_usd=0.5, calls=1)
    assert one + one == Spend(usage=Usage(input_tokens=2), cost_usd=1.0, calls=2)
    assert one + Spend() == one


PRICES = {"claude-opus": PRICE, "claude-opus-4-5": CHEAP, "claude-haiku": CHEAP}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-opus-4-1-20250805", PRICE),
        ("claude-opus-4-5-20251101", CHEAP),
        ("claude-opus", PRICE),
        ("claude-haiku-4-5", CHEAP),
        ("claude-sonnet-4-5", None),
        ("opus", None),
        ("", None),
    ],
)
def test_a_model_has_the_price_of_the_longest_name_it_begins_with(model: str, expected: Price | None) -> None:
    assert price_of(model, PRICES) is expected


@quick
@given(names=st.sets(st.text("ab-", max_size=4)), model=st.text("ab-", max_size=8))
def test_the_price_does_not_depend_on_the_order_of_the_table(names: set[str], model: str) -> None:
    prices = {name: Price(input=len(name), output=0, cache_read=0, cache_write=0) for name in sorted(names)}
    backwards = dict(reversed(prices.items()))
    assert price_of(model, prices) is price_of(model, backwards)


def _budget(name: str, **bounds: Any) -> Budget:
    return Budget(key=name, name=name, allowance=Allowance(**bounds))


SPENT = {
    "little": Spend(usage=Usage(input_tokens=10, cache_read_tokens=50), cost_usd=0.99, calls=2, time=timedelta(minutes=1)),
    "much": Spend(usage=Usage(output_tokens=90, cache_read_tokens=500), cost_usd=5.0, calls=9, time=timedelta(hours=1)),
}


def spent(key: str) -> Spend:
    return SPENT.get(key, Spend())


@pytest.mark.parametrize(
    ("bounds", "over"),
    [
        ({"usd": 5.01}, False),
        ({"usd": 5.0}, True),
        ({"tokens": 91}, False),
        ({"tokens": 90}, True),
        ({"cached_tokens": 501}, False),
        ({"cached_tokens": 500}, True),
        ({"turns": 10}, False),
        ({"turns": 9}, True),
        ({"time": timedelta(minutes=61)}, False),
        ({"time": timedelta(minutes=60)}, True),
        ({"usd": 100.0, "turns": 9}, True),
        ({}, False),
    ],
)
def test_a_budget_is_exhausted_when_all_of_any_of_its_bounds_is_spent(bounds: dict[str, object], *, over: bool) -> None:
    assert (exhausted(levels([_budget("much", **bounds)], spent)) is not None) is over


def test_the_first_budget_with_nothing_left_is_named_with_what_is_spent() -> None:
    found = exhausted(levels([_budget("little", usd=2), _budget("much", usd=9, turns=9), _budget("much", usd=1)], spent))
    assert found is not None
    assert (found.budget.name, found.resource, found.told) == ("much", Resource.TURNS, "9 of 9 model calls")


def test_four_fifths_are_worth_a_warning() -> None:
    found = nearly(levels([_budget("little", usd=1.0, turns=3, tokens=12, time=timedelta(seconds=70))], spent))
    assert [level.resource for level in found] == [Resource.USD, Resource.TOKENS, Resource.TIME]


@quick
@given(now=st.datetimes(timezones=st.just(UTC)), per=st.sampled_from(Period), scope=st.sampled_from(Scope))
def test_spending_begins_at_nothing_with_each_period_and_is_one_sum_within_it(now: datetime, per: Period, scope: Scope) -> None:
    standing = StandingBudget(scope=scope, allowance=Allowance(), per=per)
    since = began(per, now)
    if since is None:
        assert standing_key(standing, "shop", now) == f"{scope.value}:shop"
        return
    assert since <= now
    assert standing_key(standing, "shop", since) == standing_key(standing, "shop", now)
    if since > datetime(1, 1, 2, tzinfo=UTC):
        assert standing_key(standing, "shop", since - timedelta(microseconds=1)) != standing_key(standing, "shop", now)


@pytest.mark.parametrize(
    ("resource", "value", "told"),
    [
        (Resource.USD, 1.5, "$1.50"),
        (Resource.TOKENS, 2e6, "2,000,000 tokens"),
        (Resource.CACHED_TOKENS, 7, "7 cached tokens"),
        (Resource.TURNS, 3, "3 model calls"),
        (Resource.TIME, 3661.4, "1:01:01"),
    ],
)
def test_amounts_are_told_with_their_unit(resource: Resource, value: float, told: str) -> None:
    assert amount_told(resource, value) == told
