import json
from pathlib import Path

import pytest

from kapelle.adapters.gateway.prices import PRICES, cost_of, read_prices
from kapelle.core.budget import Price, Usage, price_of
from kapelle.core.errors import FileMissing, UsageError


def test_a_model_with_a_date_has_the_price_of_its_family() -> None:
    assert price_of("claude-sonnet-4-5-20250929", PRICES) == PRICES["claude-sonnet-4"]
    assert price_of("claude-opus-4-20250514", PRICES) == PRICES["claude-opus-4-2025"]


def test_the_longest_name_that_fits_decides() -> None:
    assert price_of("claude-opus-5-5", PRICES) == PRICES["claude-opus-5-5"]
    assert price_of("claude-opus-5-5", PRICES) != PRICES["claude-opus-5"]


def test_a_model_that_is_not_listed_has_no_price() -> None:
    assert price_of("gpt-9", PRICES) is None
    assert price_of("", PRICES) is None


@pytest.mark.parametrize("name", sorted(PRICES))
def test_reading_from_the_cache_is_cheapest_and_writing_answers_dearest(name: str) -> None:
    price = PRICES[name]
    assert 0 < price.cache_read < price.input < price.cache_write < price.output


def test_a_million_of_each_costs_what_the_list_says() -> None:
    million = 1_000_000
    usage = Usage(input_tokens=million, output_tokens=million, cache_read_tokens=million, cache_write_tokens=million)
    assert cost_of(usage, PRICES["claude-sonnet-4"]) == pytest.approx(3 + 15 + 0.3 + 3.75)


def test_writing_to_the_cache_for_an_hour_costs_twice_the_input() -> None:
    usage = Usage(cache_write_tokens=1_000_000)
    assert cost_of(usage, PRICES["claude-sonnet-4"], hour_writes=1_000_000) == pytest.approx(6)
    assert cost_of(usage, PRICES["claude-sonnet-4"], hour_writes=400_000) == pytest.approx(0.4 * 6 + 0.6 * 3.75)


def test_a_table_of_ones_own_lies_over_the_list(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"mine": {"input": 1, "output": 2, "cache_read": 0.1, "cache_write": 1.5}}))
    prices = read_prices(path)
    assert prices["mine"] == Price(input=1, output=2, cache_read=0.1, cache_write=1.5)
    assert prices["claude-sonnet-4"] == PRICES["claude-sonnet-4"]
    assert "mine" not in PRICES


@pytest.mark.parametrize("text", ["", "[]", "{", '{"m": {"input": 1}}', '{"m": {"input": "x"}}', '{"m": 3}', "\ud800"])
def test_a_table_that_is_none_is_told_with_an_example(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UsageError, match=r"prices\.json is no price table") as caught:
        read_prices(path)
    assert "cache_write" in caught.value.advice


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match=r"prices\.json"):
        read_prices(tmp_path / "prices.json")
