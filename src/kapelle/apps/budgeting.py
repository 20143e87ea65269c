"""Budgets, from the files to what a run is submitted with."""

from kapelle.apps import models
from kapelle.core.budget import Allowance, Period, Scope, StandingBudget


def allowance(usd: float | None, *budgets: models.Budget | models.Total | None) -> Allowance:
    """Return what may be spent: of each resource what the first of *budgets* says that speaks of it; *usd* before all."""

    def first(name: str) -> object:
        said = (getattr(budget, name, None) for budget in budgets if budget is not None)
        return next((value for value in said if value is not None), None)

    found = {name: first(name) for name in ("usd", "tokens", "cached_tokens", "turns", "time")}
    return Allowance(**{**found, "usd": found["usd"] if usd is None else usd})  # pyright: ignore[reportArgumentType]


def standing(budgets: models.Budgets) -> tuple[StandingBudget, ...]:
    """Return what may be spent by more than one run."""
    found: list[StandingBudget] = []
    for scope, budget in ((Scope.PROJECT, budgets.project), (Scope.ACCOUNT, budgets.account), (Scope.DAY, budgets.day)):
        if budget is not None and (bounds := allowance(None, budget)).bounded:
            per = budget.per if isinstance(budget, models.PeriodTotal) else Period.DAY
            found.append(StandingBudget(scope=scope, allowance=bounds, per=per))
    return tuple(found)
