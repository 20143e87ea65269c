"""Who holds which agent still, in this process."""

from asyncio import Lock
from collections import defaultdict

from kapelle.core.ids import AgentId


class Holds:
    """Who holds each agent still; several may at a time, and only the last one lets it go on."""

    def __init__(self) -> None:
        self.by: defaultdict[AgentId, set[str]] = defaultdict(set)
        self.locks: defaultdict[AgentId, Lock] = defaultdict(Lock)
        """One is held while an agent is made still, or let go on."""

    def forget(self) -> None:
        """Begin anew: what was known is an earlier leader's."""
        self.by.clear()
        self.locks.clear()
