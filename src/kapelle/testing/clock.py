"""A clock that is moved by hand."""

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""When tests begin."""


class HandClock:
    """See ``core.ports.Clock``: it stands still until it is moved."""

    def __init__(self, time: datetime = NOON) -> None:
        self._time = time

    def now(self) -> datetime:
        """See the port."""
        return self._time

    def move(self, by: timedelta) -> datetime:
        """Let *by* pass and return the time then."""
        return self.move_to(self._time + by)

    def move_to(self, moment: datetime) -> datetime:
        """Let it be *moment*, or leave it when it is later already; return the time then."""
        self._time = max(self._time, moment)
        return self._time

    def jump(self, by: timedelta) -> datetime:
        """Let somebody set the clock, forward or back, and return the time then."""
        self._time += by
        return self._time
