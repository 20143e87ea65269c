"""Budgets, from the files to what a run is submitted with."""

from decimal import Decimal
from math import isfinite

from kapelle.apps import models
from kapelle.core.budget import Allowance, Period, Resource, Scope, StandingBudget
from kapelle.core.counts import parse_count
from kapelle.core.durations import parse_duration
from kapelle.core.errors import UsageError
from kapelle.core.hours import WorkingHours, parse_window
from kapelle.core.spent import example


def allowance(usd: float | None, *budgets: models.Budget | models.Total | None) -> Allowance:
    """Return what may be spent: of each resource what the first of *budgets* says that speaks of it; *usd* before all."""

    def first(name: str) -> object:
        said = (getattr(budget, name, None) for budget in budgets if budget is not None)
        return next((value for value in said if value is not None), None)

    found = {name: first(name) for name in ("usd", "tokens", "cached_tokens", "turns", "time")}
    return Allowance(**{**found, "usd": found["usd"] if usd is None else usd})  # pyright: ignore[reportArgumentType]


def working_hours(project: models.Project) -> WorkingHours | None:
    """Return when agents of *project* may work; None: always."""
    if not project.working_hours:
        return None
    return WorkingHours(windows=tuple(parse_window(text) for text in project.working_hours), zone=project.time_zone)


def amount_of(resource: Resource, text: str) -> float:
    """Return how much of *resource* a person means by *text*, written as in the files: US dollars, numbers, seconds.

    Raises:
        UsageError: it is no such amount, or nothing.
    """
    try:
        match resource:
            case Resource.USD:
                found = float(Decimal(text.strip().removeprefix("$")))
            case Resource.TIME:
                found = parse_duration(text).total_seconds()
            case _:
                found = float(parse_count(text))
    except (ValueError, ArithmeticError) as error:
        raise UsageError(
            f"{text[:100]!r} is no amount of {resource.value}", remedy=f"Write it as {example(resource)}."
        ) from error
    if not (isfinite(found) and found > 0):
        raise UsageError(f"{text[:100]!r} adds nothing", remedy=f"Write by how much more it may be: {example(resource)}.")
    return found


def standing(budgets: models.Budgets) -> tuple[StandingBudget, ...]:
    """Return what may be spent by more than one run."""
    found: list[StandingBudget] = []
    for scope, budget in ((Scope.PROJECT, budgets.project), (Scope.ACCOUNT, budgets.account), (Scope.DAY, budgets.day)):
        if budget is not None and (bounds := allowance(None, budget)).bounded:
            per = budget.per if isinstance(budget, models.PeriodTotal) else Period.DAY
            found.append(StandingBudget(scope=scope, allowance=bounds, per=per))
    return tuple(found)
