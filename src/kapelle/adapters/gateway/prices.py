"""What models cost, in US dollars per million tokens: list prices of the API, by the beginning of a model's name.

Where nothing else is given, reading from the cache costs a tenth of the input price and writing to it (for five minutes) a
quarter more than it; writing for an hour costs twice the input price. A table of one's own comes by ``KAPELLE_PRICES``, a JSON
file of the same shape.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from kapelle.core.budget import Price, Usage, cost_usd
from kapelle.core.errors import FileMissing, UsageError
from kapelle.mistaken import wrong


def _price(read: float, written: float, *, from_cache: float | None = None) -> Price:
    cached = read / 10 if from_cache is None else from_cache
    return Price(input=read, output=written, cache_read=cached, cache_write=read * 1.25)


# A family that is not listed is not priced at all, rather than wrongly.
PRICES: Mapping[str, Price] = {
    "claude-fable-5-2": _price(8.0, 40.0, from_cache=0.2),
    "claude-fable-5-1": _price(10.0, 50.0, from_cache=0.25),
    "claude-fable-5": _price(10.0, 50.0),
    "claude-mythos-5-2": _price(8.0, 40.0, from_cache=0.2),
    "claude-mythos-5": _price(10.0, 50.0),
    "claude-opus-5-5": _price(4.0, 20.0, from_cache=0.2),
    "claude-opus-5": _price(5.0, 25.0),
    "claude-opus-4-8": _price(5.0, 25.0),
    "claude-opus-4-7": _price(5.0, 25.0),
    "claude-opus-4-6": _price(5.0, 25.0),
    "claude-opus-4-5": _price(5.0, 25.0),
    "claude-opus-4-1": _price(15.0, 75.0),
    "claude-opus-4-0": _price(15.0, 75.0),
    "claude-opus-4-2025": _price(15.0, 75.0),
    "claude-sonnet-5-5": _price(2.0, 10.0, from_cache=0.1),
    "claude-sonnet-5": _price(2.0, 10.0),
    "claude-sonnet-4": _price(3.0, 15.0),
    "claude-haiku-5-5": _price(0.1, 0.5),
    "claude-haiku-4-5": _price(1.0, 5.0),
    "claude-3-7-sonnet": _price(3.0, 15.0),
    "claude-3-5-sonnet": _price(3.0, 15.0),
    "claude-3-5-haiku": _price(0.8, 4.0),
    "claude-3-opus": _price(15.0, 75.0),
    "claude-3-sonnet": _price(3.0, 15.0),
    "claude-3-haiku": Price(input=0.25, output=1.25, cache_read=0.03, cache_write=0.3),
}

EXAMPLE = 'Write it like this: {"my-model": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}}'


def read_prices(path: Path) -> dict[str, Price]:
    """Return the shipped prices with those of the JSON file at *path* over them.

    Raises:
        FileMissing: it cannot be read.
        UsageError: it is no table of prices.
    """
    try:
        own = TypeAdapter(dict[str, Price]).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise FileMissing(f"the price table {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        said, advice = wrong(first)
        place = ".".join(str(part) for part in first["loc"])
        why = "is missing" if first["type"] == "missing" else f"{said.strip()}: {advice}"
        raise UsageError(f"{path} is no price table: {place} {why}", remedy=EXAMPLE) from error
    except ValueError as error:
        raise UsageError(f"{path} is no price table: {error}", remedy=EXAMPLE) from error
    return {**PRICES, **own}


def cost_of(usage: Usage, price: Price, *, hour_writes: int = 0) -> float:
    """Return what *usage* costs in US dollars, *hour_writes* of its cache writes being for an hour."""
    return cost_usd(usage, price) + hour_writes * (2 * price.input - price.cache_write) / 1_000_000
