"""Events of what stops agents from spending: budgets that a person is asked about, the off switch."""

from datetime import datetime
from typing import ClassVar

from kapelle.core.event import Event
from kapelle.core.frozen import frozen
from kapelle.core.ids import HaltId, SpentId


@frozen
class BudgetAsked(Event):
    """A budget is spent: all that spends under it waits, and a person is asked. Run and task are those that met it first."""

    kind: ClassVar[str] = "budget.asked"
    spent_id: SpentId
    budget: str
    resource: str
    """As in ``budget.reached``."""
    limit: float
    spent: float
    deadline_at: datetime | None = None
    """When it counts as stopped; None: never."""


@frozen
class BudgetRaised(Event):
    """A person raised a budget that was spent: what waited goes on."""

    kind: ClassVar[str] = "budget.raised"
    spent_id: SpentId
    budget: str
    resource: str
    more: float
    """By how much."""
    limit: float
    """What may be spent now."""
    spent: float
    principal: str
    reason: str = ""


@frozen
class BudgetStopped(Event):
    """A budget that was spent stays so: what waited has failed."""

    kind: ClassVar[str] = "budget.stopped"
    spent_id: SpentId
    budget: str
    resource: str
    limit: float
    spent: float
    tasks: int
    """How many waited."""
    principal: str = ""
    """Who said so; empty when nobody answered in time."""
    reason: str = ""


@frozen
class BudgetWithdrawn(Event):
    """Nobody spends any more under a budget that a person was asked about: its run has ended, or its period is over."""

    kind: ClassVar[str] = "budget.withdrawn"
    spent_id: SpentId
    budget: str
    resource: str


@frozen
class HaltBegun(Event):
    """A person halted everything: no model call passes, and agents are stopped."""

    kind: ClassVar[str] = "halt.begun"
    halt_id: HaltId
    principal: str
    reason: str = ""


@frozen
class HaltLifted(Event):
    """A person lets everything go on that was halted."""

    kind: ClassVar[str] = "halt.lifted"
    halt_id: HaltId
    principal: str
    reason: str = ""
