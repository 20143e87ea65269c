"""Spares and standing pools, in one transaction."""

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kapelle.core.ids import AgentId, TaskId
from kapelle.core.pool import Assignment, Spare, StandingPool

if TYPE_CHECKING:
    from kapelle.adapters.store.statements import Statements


class SqlSpares:
    """See ``core.pool.SpareTable``."""

    def __init__(self, connection: sqlite3.Connection, statements: "Statements") -> None:
        self._at = connection
        self._all = statements
        self._found: list[Spare] | None = None
        """What ``all`` found: every stage asks for it, and mostly there are none."""
        self._standing: list[StandingPool] | None = None
        """What ``standing`` found, likewise."""

    def put(self, spare: Spare) -> None:
        self._found = None
        self._all.pool.rows.put(self._at, spare)

    def get(self, agent_id: AgentId) -> Spare | None:
        return self._all.pool.rows.get(self._at, agent_id)

    def drop(self, agent_id: AgentId) -> None:
        self._found = None
        self._all.pool.drop.do(self._at, agent_id=agent_id)

    def all(self) -> Sequence[Spare]:
        if self._found is None:
            pool = self._all.pool
            self._found = [pool.rows.load(self._at, row) for row in pool.all.run(self._at)]
        return list(self._found)

    def put_standing(self, pool: StandingPool) -> None:
        self._standing = None
        self._all.pool.standing_rows.put(self._at, pool)

    def drop_standing(self, key: str) -> None:
        self._standing = None
        self._all.pool.drop_standing.do(self._at, key=key)

    def standing(self) -> Sequence[StandingPool]:
        if self._standing is None:
            pool = self._all.pool
            self._standing = [pool.standing_rows.load(self._at, row) for row in pool.standing.run(self._at)]
        return list(self._standing)

    def assign(self, assignment: Assignment) -> None:
        self._all.pool.given_rows.put(self._at, assignment)

    def unassign(self, task_id: TaskId) -> None:
        self._all.pool.drop_given.do(self._at, task_id=task_id)

    def assignments(self) -> Sequence[Assignment]:
        pool = self._all.pool
        return [pool.given_rows.load(self._at, row) for row in pool.given.run(self._at)]
