"""Spent budgets: those of which nothing is left, and what a person says about it.

open -> raised (by so much more: what waited goes on)
   |--> stopped (a person says so, or nobody answered in time: what waits fails)
   +--> withdrawn (nobody spends under it any more)
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from kapelle.core.budget import Allowance, Budget, Resource, amounts_told
from kapelle.core.errors import IllegalTransition
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import RunId, SpentId, TaskId


class OnSpent(StrEnum):
    """What becomes of tasks whose budget is spent."""

    ASK = "ask"
    """They wait, and a person is asked."""
    STOP = "stop"
    """They fail."""


class SpentAnswer(StrEnum):
    """What a person may say about a budget that is spent."""

    RAISE = "raise"
    """So much more may be spent: what waits goes on."""
    STOP = "stop"
    """What waits fails, and its work is kept."""


class SpentState(StrEnum):
    """Where the question about a spent budget stands."""

    OPEN = "open"
    RAISED = "raised"
    STOPPED = "stopped"
    WITHDRAWN = "withdrawn"


SPENT_TRANSITIONS: dict[SpentState, frozenset[SpentState]] = {
    SpentState.OPEN: frozenset({SpentState.RAISED, SpentState.STOPPED, SpentState.WITHDRAWN}),
    SpentState.RAISED: frozenset(),
    SpentState.STOPPED: frozenset(),
    SpentState.WITHDRAWN: frozenset(),
}


@frozen
class SpentBudget:
    """A budget that was reached: one question to a person, however many tasks wait for the answer."""

    spent_id: SpentId
    key: str
    """What spending is added up under; see ``budget.Budget``."""
    resource: Resource
    name: str
    """What people call the budget."""
    run_id: RunId
    """The run whose agent met it first."""
    task_id: TaskId
    limit: float
    """What might be spent when it was reached, all raises so far included."""
    spent: float
    """What was spent then; more when somebody with a higher limit has met it since."""
    state: SpentState = SpentState.OPEN
    more: float = 0.0
    """By how much a person has raised it."""
    answered_by: str = ""
    """Who answered; empty when it was nobody."""
    note: str = ""
    """Why, in the words of whoever answered."""
    asked_at: datetime
    deadline_at: datetime | None = None
    """When it counts as stopped without an answer; None: it waits for ever."""
    settled_at: datetime | None = None
    over_at: datetime | None = None
    """When it lost its meaning: its run or task has ended, or its period is over."""

    @property
    def amounts(self) -> str:
        """What was spent of what, in words."""
        return amounts_told(self.resource, self.spent, self.limit)


Raises = Mapping[tuple[str, Resource], float]
"""By how much budgets were raised, by what their spending is added up under and what is bounded."""

EXAMPLES: Mapping[Resource, str] = {Resource.USD: "5", Resource.TIME: "30m", Resource.TURNS: "50"}
"""Amounts as people may write them; of tokens, as in ``example``."""


def settle(
    found: SpentBudget, to: SpentState, now: datetime, *, more: float = 0.0, by: str = "", note: str = ""
) -> SpentBudget:
    """Return *found* in the state *to*.

    Raises:
        IllegalTransition: it is settled already.
    """
    if to not in SPENT_TRANSITIONS[found.state]:
        raise IllegalTransition("spent budget", found.spent_id, found.state, to)
    over = now if to is SpentState.WITHDRAWN else None
    return replace(found, state=to, more=more, answered_by=by, note=note, settled_at=now, over_at=over)


def raises_of(rows: Iterable[SpentBudget]) -> Raises:
    """Return by how much the budgets of *rows* were raised, all answers together."""
    found: dict[tuple[str, Resource], float] = {}
    for row in rows:
        if row.state is SpentState.RAISED:
            key = (row.key, row.resource)
            found[key] = found.get(key, 0.0) + row.more
    return found


def raised(budget: Budget, raises: Raises) -> Budget:
    """Return *budget* with what people have added to it."""
    if not raises:
        return budget
    more = {resource: raises.get((budget.key, resource), 0.0) for resource in Resource}
    if not any(more.values()):
        return budget
    return replace(budget, allowance=_plus(budget.allowance, more))


def _plus(allowance: Allowance, more: Mapping[Resource, float]) -> Allowance:
    usd, time = allowance.usd, allowance.time

    def count(value: int | None, resource: Resource) -> int | None:
        return None if value is None else value + round(more[resource])

    return Allowance(
        usd=None if usd is None else usd + more[Resource.USD],
        tokens=count(allowance.tokens, Resource.TOKENS),
        cached_tokens=count(allowance.cached_tokens, Resource.CACHED_TOKENS),
        turns=count(allowance.turns, Resource.TURNS),
        time=None if time is None else time + timedelta(seconds=more[Resource.TIME]),
    )


def in_the_way(rows: Iterable[SpentBudget], budgets: Iterable[Budget], raises: Raises) -> Sequence[SpentBudget]:
    """Return which of *rows* keep an agent with *budgets* from calling: stopped ones before those asked about.

    Runs may have different limits for what they spend together: only those wait that have nothing left.
    """
    waiting = [row for row in rows if row.state in {SpentState.OPEN, SpentState.STOPPED}]
    if not waiting:
        return []
    limits = {
        (budget.key, resource): limit
        for budget in (raised(each, raises) for each in budgets)
        for resource, limit in budget.allowance.limits()
    }
    found = [row for row in waiting if row.spent >= limits.get((row.key, row.resource), float("inf"))]
    return sorted(found, key=lambda row: row.state is not SpentState.STOPPED)


def example(resource: Resource) -> str:
    """Return an amount of *resource* as people may write it."""
    return EXAMPLES.get(resource, "1M")


def told(found: SpentBudget) -> str:
    """Say why whoever has nothing left under *found* waits, and what a person may do; or who has said that nothing follows."""
    said = f"the budget of {found.name} is spent ({found.amounts})"
    if found.state is not SpentState.STOPPED:
        return f"{said}: kapelle answer {found.spent_id} raise AMOUNT, or stop"
    if not found.answered_by:
        return f"{said}, and nobody raised it in time"
    return f"{said}, and {found.answered_by} said stop" + (f": {found.note}" if found.note else "")
