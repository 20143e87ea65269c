"""Tokens, money, turns and time: what a model call used, what it cost, and what may still be spent, and by whom."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter

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
    time: timedelta = timedelta(0)
    """For which agents worked: while they were there, but for the time for which a person had frozen them."""

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(
            usage=self.usage + other.usage,
            cost_usd=self.cost_usd + other.cost_usd,
            calls=self.calls + other.calls,
            time=self.time + other.time,
        )


class Resource(StrEnum):
    """What of it may be bounded."""

    USD = "usd"
    TOKENS = "tokens"
    CACHED_TOKENS = "cached_tokens"
    TURNS = "turns"
    TIME = "time"


@frozen
class Allowance:
    """What may be spent under one name; None where there is no bound."""

    usd: float | None = None
    """US dollars; notional where a subscription pays."""
    tokens: int | None = None
    """Tokens of model calls but for those that were read from a cache, which cost a tenth."""
    cached_tokens: int | None = None
    """Tokens that were read from a cache."""
    turns: int | None = None
    """Model calls, those of subagents too."""
    time: timedelta | None = None
    """For which agents worked, one after the other or side by side."""

    def limits(self) -> Iterator[tuple[Resource, float]]:
        """Yield what is bounded, and by how much: US dollars, numbers, seconds."""
        for resource in Resource:
            limit = getattr(self, resource.value)
            if limit is not None:
                yield resource, limit.total_seconds() if isinstance(limit, timedelta) else float(limit)

    @property
    def bounded(self) -> bool:
        """Whether there is any bound."""
        return _amounts(self) != _NOTHING


_amounts = attrgetter(*(resource.value for resource in Resource))
_NOTHING = _amounts(Allowance())


class Scope(StrEnum):
    """Whose spending is added up."""

    TASK = "task"
    RUN = "run"
    PROJECT = "project"
    ACCOUNT = "account"
    DAY = "day"
    """Everything here, from midnight to midnight (UTC)."""


class Grouping(StrEnum):
    """By what spending is told."""

    TASK = "task"
    RUN = "run"
    AGENT = "agent"
    MODEL = "model"
    DAY = "day"
    PROJECT = "project"
    ACCOUNT = "account"


@frozen
class Used:
    """What was spent by one group."""

    group: str
    """A task's or a run's id, the name of an agent config, a model, a day (UTC), a project or an account."""
    account_id: str
    """The account that it was spent by: each group is told account by account."""
    spend: Spend
    seconds: float
    """How long the calls took, all together."""


class Period(StrEnum):
    """How long spending is added up before it begins at nothing again."""

    EVER = "ever"
    DAY = "day"
    MONTH = "month"


@frozen
class StandingBudget:
    """A budget for more than a run: of a project, an account or a day."""

    scope: Scope
    allowance: Allowance
    per: Period = Period.EVER


@frozen
class Budget:
    """What may be spent under one name, and what was."""

    key: str
    """What spending is added up under."""
    name: str
    """What people call it."""
    allowance: Allowance


@frozen
class Level:
    """How much of one resource of a budget is spent."""

    budget: Budget
    resource: Resource
    limit: float
    spent: float

    @property
    def told(self) -> str:
        """What is spent of what, in words."""
        return amounts_told(self.resource, self.spent, self.limit)


_OF_PERIOD = re.compile(r"@(\d{4}-\d\d-\d\d)/(day|month)$")
WARNING = 0.8
"""The share of a budget after which people are warned."""


def began(period: Period, now: datetime) -> datetime | None:
    """Return when the present *period* began, in UTC; None when it has no beginning."""
    if period is Period.EVER:
        return None
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if period is Period.DAY else midnight.replace(day=1)


def ends(period: Period, now: datetime) -> datetime | None:
    """Return when the present *period* ends, in UTC; None when it has no end."""
    since = began(period, now)
    if since is None:
        return None
    # A month has at most 31 days, and 32 days after its first is in the next one.
    return since + timedelta(days=1) if period is Period.DAY else (since + timedelta(days=32)).replace(day=1)


def standing_key(budget: StandingBudget, whose: str, now: datetime) -> str:
    """Return what the spending of *whose* (the project's name, the account's id) is added up under at *now*."""
    since = began(budget.per, now)
    return f"{budget.scope.value}:{whose}" + (f"@{since:%Y-%m-%d}/{budget.per.value}" if since is not None else "")


def past(key: str, now: datetime) -> bool:
    """Say whether what is added up under *key* is of a period that is over at *now*."""
    found = _OF_PERIOD.search(key)
    since = began(Period(found[2]), now) if found is not None else None
    return found is not None and since is not None and f"{since:%Y-%m-%d}" != found[1]


def amount(resource: Resource, spend: Spend) -> float:
    """Return how much of *resource* was spent: US dollars, numbers, seconds."""
    match resource:
        case Resource.USD:
            return spend.cost_usd
        case Resource.TOKENS:
            return spend.usage.total - spend.usage.cache_read_tokens
        case Resource.CACHED_TOKENS:
            return spend.usage.cache_read_tokens
        case Resource.TURNS:
            return spend.calls
        case Resource.TIME:
            return spend.time.total_seconds()


def amount_told(resource: Resource, value: float) -> str:
    """Return an amount in words for people."""
    match resource:
        case Resource.USD:
            return f"${value:.2f}"
        case Resource.TIME:
            return f"{timedelta(seconds=round(value))}"
        case Resource.TURNS:
            return f"{value:.0f} model calls"
        case Resource.TOKENS:
            return f"{value:,.0f} tokens"
        case Resource.CACHED_TOKENS:
            return f"{value:,.0f} cached tokens"


def amounts_told(resource: Resource, spent: float, limit: float) -> str:
    """Say in words for people how much of what was spent; the unit once."""
    whole = amount_told(resource, limit)
    unit = "" if resource is Resource.TIME else whole.partition(" ")[2]
    return f"{amount_told(resource, spent).removesuffix(f' {unit}')} of {whole}"


def levels(budgets: Iterable[Budget], spent: Callable[[str], Spend]) -> Iterator[Level]:
    """Yield how far each bound of *budgets* is spent; *spent* says what was, by key."""
    for budget in budgets:
        found = spent(budget.key)
        for resource, limit in budget.allowance.limits():
            yield Level(budget=budget, resource=resource, limit=limit, spent=amount(resource, found))


def exhausted(found: Iterable[Level]) -> Level | None:
    """Return the first of which nothing is left, or None when one more model call may be made.

    A call's cost is known only when it has ended, so the last call may pass the budget; no further one starts.
    """
    return next((level for level in found if level.spent >= level.limit), None)


def all_exhausted(found: Iterable[Level]) -> Iterator[Level]:
    """Yield those of which nothing is left."""
    return (level for level in found if level.spent >= level.limit)


def nearly(found: Iterable[Level]) -> Iterator[Level]:
    """Yield those that are spent but for a rest."""
    return (level for level in found if level.spent >= WARNING * level.limit)
