"""Who holds which agent still, in this process."""

from asyncio import Lock
from collections import defaultdict
from weakref import WeakValueDictionary

from kapelle.core.ids import AgentId


class Holds:
    """Who holds each agent still; several may at a time, and only the last one lets it go on."""

    def __init__(self) -> None:
        self.by: defaultdict[AgentId, set[str]] = defaultdict(set)
        self._locks: WeakValueDictionary[AgentId, Lock] = WeakValueDictionary()

    def lock(self, agent_id: AgentId) -> Lock:
        """Return what is held while an agent is made still, or let go on; it is there as long as somebody wants it."""
        found = self._locks.get(agent_id)
        if found is None:
            found = self._locks[agent_id] = Lock()
        return found

    def forget(self) -> None:
        """Begin anew: what was known is an earlier leader's."""
        self.by.clear()
        self._locks = WeakValueDictionary()
