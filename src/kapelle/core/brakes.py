"""The store's table of brakes: budgets that are spent, and the off switch. Part of ``core.store.View``."""

from collections.abc import Sequence
from typing import Protocol

from kapelle.core.halt import Halt
from kapelle.core.ids import SpentId
from kapelle.core.spent import SpentBudget


class BrakeTable(Protocol):
    """What keeps agents from working though nothing else does."""

    def put_spent(self, spent: SpentBudget) -> None:
        """Add or replace *spent*."""
        ...

    def get_spent(self, spent_id: SpentId) -> SpentBudget | None:
        """Return the spent budget, or None."""
        ...

    def spent(self) -> Sequence[SpentBudget]:
        """Return the spent budgets that are not over, whatever was answered, the oldest first."""
        ...

    def find_spent(self, prefix: str) -> Sequence[SpentBudget]:
        """Return at most two spent budgets whose id begins with *prefix*, the newest first."""
        ...

    def put_halt(self, halt: Halt) -> None:
        """Add or replace *halt*."""
        ...

    def halt(self) -> Halt | None:
        """Return the halt that is not lifted, or None."""
        ...
