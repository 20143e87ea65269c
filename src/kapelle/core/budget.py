"""Tokens and money: what a model call used, what it cost, and what may still be spent."""

from collections.abc import Iterable, Mapping
from dataclasses import field

from kapelle.core.frozen import frozen


@frozen
class Usage:
    """Tokens of one or more model calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
        )

    @property
    def total(self) -> int:
        """All tokens, of whatever kind."""
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens


@frozen
class Price:
    """What a model costs, in US dollars per million tokens."""

    input: float
    output: float
    cache_read: float
    cache_write: float


def cost_usd(usage: Usage, price: Price) -> float:
    """Return what *usage* costs at *price*, in US dollars."""
    return (
        usage.input_tokens * price.input
        + usage.output_tokens * price.output
        + usage.cache_read_tokens * price.cache_read
        + usage.cache_write_tokens * price.cache_write
    ) / 1_000_000


def price_of(model: str, prices: Mapping[str, Price]) -> Price | None:
    """Return the price of *model*: of the longest name in *prices* that it begins with, or None.

    Models carry a date at their end (``claude-sonnet-4-5-20250929``), so the table names families.
    """
    fitting = [name for name in prices if model.startswith(name)]
    return prices[max(fitting, key=len)] if fitting else None


@frozen
class Spend:
    """What has been spent, by whomever."""

    usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0
    calls: int = 0

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(
            usage=self.usage + other.usage,
            cost_usd=self.cost_usd + other.cost_usd,
            calls=self.calls + other.calls,
        )


@frozen
class Budget:
    """What may be spent under one name (a task, a run, a project)."""

    name: str
    limit_usd: float
    spent_usd: float


def exhausted(budgets: Iterable[Budget]) -> Budget | None:
    """Return the first budget that has nothing left, or None when one more model call may be made.

    A call's cost is known only when it has ended, so the last call may pass the budget; no further one starts.
    """
    for budget in budgets:
        if budget.spent_usd >= budget.limit_usd:
            return budget
    return None
