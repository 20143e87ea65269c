"""The store's port for how agents stand, and for alerts; see ``core.store``."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from kapelle.core.frozen import frozen
from kapelle.core.ids import AttemptId
from kapelle.core.liveness import Standing


@frozen
class Alert:
    """A bound that was passed by, and is still."""

    name: str
    project: str
    limit: float
    value: float
    told: str
    """What it says, in words for people."""
    raised_at: datetime


class StandingTable(Protocol):
    """How the agents of open attempts stand, and the alerts that are raised."""

    def put(self, standing: Standing) -> None:
        """Add or replace *standing*."""
        ...

    def get(self, attempt_id: AttemptId) -> Standing | None:
        """Return how the agent of an attempt stands, or None when nobody has looked at it."""
        ...

    def all(self) -> Sequence[Standing]:
        """Return all of them, by attempt."""
        ...

    def drop(self, attempt_id: AttemptId) -> None:
        """Forget how the agent of an attempt stood; no effect when nobody knows."""
        ...

    def raise_alert(self, alert: Alert) -> None:
        """Add or replace *alert*."""
        ...

    def alerts(self) -> Sequence[Alert]:
        """Return the alerts that are raised, by name and project."""
        ...

    def clear_alert(self, name: str, project: str) -> None:
        """Remove an alert; no effect when it is not raised."""
        ...
