"""What every stage has in common."""

from datetime import datetime
from typing import Protocol


class Stage(Protocol):
    """One stage of the flow: reads what is due, asks the core, commits the decision, then acts."""

    @property
    def name(self) -> str:
        """The stage's name, for logs."""
        ...

    async def step(self, now: datetime) -> datetime | None:
        """Do what is due; return when to be called again at the latest, or None when only a hint can bring work."""
        ...
