"""Who leads: the port by which one process at a time may write, known by its term."""

from datetime import datetime
from typing import Protocol

from kapelle.core.agent import ProcessRef
from kapelle.core.frozen import frozen


@frozen
class Lead:
    """Who leads."""

    term: int
    holder: ProcessRef
    renewed_at: datetime
    given_up: bool = False


class Led(Protocol):
    """Who leads, for those who only look."""

    async def holder(self) -> Lead | None:
        """Return who leads or led last, or None when nobody ever did."""
        ...


class Leadership(Led, Protocol):
    """Who may write: one process at a time, known by its term."""

    async def take(self, me: ProcessRef, now: datetime) -> int | None:
        """Take the lead and return the new term, or return None at once when another process holds it."""
        ...

    async def renew(self, term: int, now: datetime) -> None:
        """Say that this leader is alive.

        Raises:
            LeadLost: another process leads.
        """
        ...

    async def give_up(self, term: int) -> None:
        """Give the lead back; no effect when it is another's."""
        ...
