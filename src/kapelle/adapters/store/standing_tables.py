"""How agents stand, and alerts, over one connection in one transaction."""

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kapelle.core.ids import AttemptId
from kapelle.core.liveness import Standing
from kapelle.core.standings import Alert

if TYPE_CHECKING:
    from kapelle.adapters.store.statements import Statements


class SqlStandings:
    """See ``core.standings.StandingTable``."""

    def __init__(self, connection: sqlite3.Connection, statements: "Statements") -> None:
        self._at = connection
        self._all = statements

    def put(self, standing: Standing) -> None:
        self._all.standings.rows.put(self._at, standing)

    def get(self, attempt_id: AttemptId) -> Standing | None:
        return self._all.standings.rows.get(self._at, attempt_id)

    def all(self) -> Sequence[Standing]:
        return [self._all.standings.rows.load(self._at, row) for row in self._all.standings.all.run(self._at)]

    def drop(self, attempt_id: AttemptId) -> None:
        self._all.standings.drop.do(self._at, attempt_id=attempt_id)

    def raise_alert(self, alert: Alert) -> None:
        self._all.standings.alert_rows.put(self._at, alert)

    def alerts(self) -> Sequence[Alert]:
        return [self._all.standings.alert_rows.load(self._at, row) for row in self._all.standings.alerts.run(self._at)]

    def clear_alert(self, name: str, project: str) -> None:
        self._all.standings.clear.do(self._at, name=name, project=project)
