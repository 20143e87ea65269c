"""What models cost, in US dollars per million tokens: list prices of the API, by the beginning of a model's name.

Reading from the cache costs a tenth of the input price, writing to it (for five minutes) a quarter more than it. A table of
one's own comes by ``KAPELLE_PRICES``, a JSON file of the same shape.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from kapelle.core.budget import Price
from kapelle.core.errors import FileMissing, UsageError


def _price(read: float, written: float) -> Price:
    return Price(input=read, output=written, cache_read=read / 10, cache_write=read * 1.25)


PRICES: Mapping[str, Price] = {
    "claude-opus-4-5": _price(5.0, 25.0),
    "claude-opus-4-6": _price(5.0, 25.0),
    "claude-opus-4": _price(15.0, 75.0),
    "claude-sonnet": _price(3.0, 15.0),
    "claude-haiku-4-5": _price(1.0, 5.0),
    "claude-haiku": _price(1.0, 5.0),
    "claude-3-5-haiku": _price(0.8, 4.0),
    "claude-3-haiku": _price(0.25, 1.25),
    "claude-3-opus": _price(15.0, 75.0),
    "claude-3-5-sonnet": _price(3.0, 15.0),
    "claude-3-7-sonnet": _price(3.0, 15.0),
}

_TABLE: TypeAdapter[dict[str, Price]] = TypeAdapter(dict[str, Price])


def read_prices(path: Path) -> dict[str, Price]:
    """Return the shipped prices with those of the JSON file at *path* over them.

    Raises:
        FileMissing: it cannot be read.
        UsageError: it is no table of prices.
    """
    try:
        own = _TABLE.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise FileMissing(f"the price table {path} cannot be read: {error.strerror}") from error
    except (ValueError, ValidationError) as error:
        example = '{"my-model": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}}'
        raise UsageError(f"{path} is no price table: {error}", remedy=f"Write it like this: {example}") from error
    return {**PRICES, **own}
