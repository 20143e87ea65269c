"""Tokens, prices and what may still be spent."""

from functools import reduce
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.budget import Budget, Price, Spend, Usage, cost_usd, exhausted, price_of

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


def _budget(name: str, limit: float, spent: float) -> Budget:
    return Budget(name=name, limit_usd=limit, spent_usd=spent)


@pytest.mark.parametrize(("spent", "over"), [(0, False), (0.99, False), (1, True), (1.2, True)])
def test_a_budget_is_exhausted_when_all_of_it_is_spent(spent: float, *, over: bool) -> None:
    assert (exhausted([_budget("run", 1, spent)]) is not None) is over


def test_the_first_budget_with_nothing_left_is_named() -> None:
    found = exhausted([_budget("task", 2, 1), _budget("run", 5, 5), _budget("project", 1, 9)])
    assert found is not None
    assert found.name == "run"


def test_without_a_budget_nothing_is_exhausted() -> None:
    assert exhausted([]) is None
