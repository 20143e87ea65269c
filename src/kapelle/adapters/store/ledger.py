"""The ledger: model calls and what they cost."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kapelle.adapters.store.calls import call_of, row_of
from kapelle.adapters.store.rows import Statement, to_microseconds
from kapelle.core.budget import Grouping, Spend, Usage, Used
from kapelle.core.calls import ModelCall
from kapelle.core.ids import AccountId, RunId, TaskId

if TYPE_CHECKING:
    from kapelle.adapters.store.statements import Statements

LAST = (1 << 63) - 1


def spend_of(row: Sequence[Any]) -> Spend:
    """Return what the sums in *row* say was spent."""
    read, written, cached, cache_made, cost, calls = row
    usage = Usage(input_tokens=read, output_tokens=written, cache_read_tokens=cached, cache_write_tokens=cache_made)
    return Spend(usage=usage, cost_usd=float(cost), calls=calls)


class SqlLedger:
    """See ``core.store.Ledger``."""

    def __init__(self, connection: sqlite3.Connection, statements: "Statements") -> None:
        self._at = connection
        self._all = statements

    def add(self, calls: Sequence[ModelCall], at: datetime) -> None:
        self._all.log.book.do_many(self._at, [row_of(call, at, settled=True) for call in calls])

    def used(
        self, by: Grouping, *, since: datetime | None = None, until: datetime | None = None, run_id: RunId | None = None
    ) -> Sequence[Used]:
        statement: Statement = getattr(self._all.usage, by.value)
        rows = statement.run(
            self._at,
            since=to_microseconds(since) if since is not None else 0,
            until=to_microseconds(until) if until is not None else LAST,
            run_id=run_id or "",
        )
        return [Used(group=row[0], account_id=row[1], spend=spend_of(row[2:-1]), seconds=row[-1]) for row in rows]

    def keep(self, calls: Sequence[ModelCall], at: datetime) -> None:
        self._all.log.keep_call.do_many(self._at, [row_of(call, at, settled=False) for call in calls])

    def drop(self, call_ids: Sequence[str]) -> None:
        self._all.log.drop_call.do_many(self._at, [{"which": call_id} for call_id in call_ids])

    def on_their_way(self) -> Sequence[ModelCall]:
        return [call_of(row) for row in self._all.log.on_their_way.run(self._at)]

    def warned(self) -> Sequence[tuple[str, str, float]]:
        return [(row[0], row[1], float(row[2])) for row in self._all.log.warned.run(self._at)]

    def by_task(self, run_id: RunId) -> dict[TaskId, Spend]:
        rows = self._all.log.spend_by_task.run(self._at, run_id=run_id)
        return {TaskId(row[0]): spend_of(row[1:]) for row in rows}

    def by_run(self) -> dict[RunId, Spend]:
        return {RunId(row[0]): spend_of(row[1:]) for row in self._all.log.spend_by_run.run(self._at)}

    def total(self, *, project: str | None = None, account_id: AccountId | None = None, since: datetime | None = None) -> Spend:
        log, late = self._all.log, {"since": to_microseconds(since) if since is not None else 0}
        if project is not None:
            (row,) = log.spend_of_project.run(self._at, whose=project, **late)
        elif account_id is not None:
            (row,) = log.spend_of_account.run(self._at, whose=account_id, **late)
        else:
            (row,) = log.spend_of_all.run(self._at, **late)
        return spend_of(row)
