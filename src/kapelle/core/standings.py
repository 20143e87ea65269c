"""The store's port for how agents stand, and for alerts; see ``core.store``."""

from collections.abc import Sequence
from datetime import datetime, timedelta
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


@frozen
class AlertLimits:
    """Bounds of a project that raise an alert when they are passed by. None: there is no such bound."""

    failures: float | None = None
    """Share of a run's tasks that failed, of those that have ended."""
    queue_age: timedelta | None = None
    """How long a task that could run waits for an agent."""
    disk_free: int | None = None
    """Bytes that are to be free where state and workspaces are kept."""
    memory_free: int | None = None
    """Bytes of memory that are to be free."""
    spend_per_hour: float | None = None
    """US dollars."""

    @property
    def given(self) -> bool:
        """Whether there is any bound."""
        return self != AlertLimits()


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
