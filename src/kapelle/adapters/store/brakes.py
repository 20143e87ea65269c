"""Brakes as rows."""

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kapelle.core.halt import Halt
from kapelle.core.ids import SpentId
from kapelle.core.spent import SpentBudget

if TYPE_CHECKING:
    from kapelle.adapters.store.statements import Statements


class SqlBrakes:
    """See ``core.brakes.BrakeTable``."""

    def __init__(self, connection: sqlite3.Connection, statements: "Statements") -> None:
        self._at = connection
        self._all = statements
        # What was found: nearly every stage asks, and mostly there are none.
        self._spent: list[SpentBudget] | None = None
        self._halt: list[Halt] | None = None

    def put_spent(self, spent: SpentBudget) -> None:
        self._spent = None
        self._all.brakes.rows.put(self._at, spent)

    def get_spent(self, spent_id: SpentId) -> SpentBudget | None:
        return self._all.brakes.rows.get(self._at, spent_id)

    def spent(self) -> Sequence[SpentBudget]:
        if self._spent is None:
            self._spent = [self._all.brakes.rows.load(self._at, row) for row in self._all.brakes.standing.run(self._at)]
        return list(self._spent)

    def find_spent(self, prefix: str) -> Sequence[SpentBudget]:
        # Asked for by a person only, and there are few.
        rows = self._all.brakes.newest.run(self._at)
        found = [self._all.brakes.rows.load(self._at, row) for row in rows]
        return [spent for spent in found if spent.spent_id.startswith(prefix)][:2]

    def put_halt(self, halt: Halt) -> None:
        self._halt = None
        self._all.brakes.halt_rows.put(self._at, halt)

    def halt(self) -> Halt | None:
        if self._halt is None:
            self._halt = [self._all.brakes.halt_rows.load(self._at, row) for row in self._all.brakes.halt.run(self._at)]
        return self._halt[0] if self._halt else None
