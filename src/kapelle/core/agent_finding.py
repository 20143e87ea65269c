"""How agents are found that a person names, whether they live or not: a part of the store's port."""

from collections.abc import Sequence
from typing import Protocol

from kapelle.core.agent import Agent
from kapelle.core.ids import TaskId


class AgentFinding(Protocol):
    """Agents by what people know of them."""

    def find(self, prefix: str) -> Sequence[Agent]:
        """Return at most two agents whose id begins with *prefix*, the newest first."""
        ...

    def newest(self, limit: int, task_id: TaskId | None = None) -> Sequence[Agent]:
        """Return agents, live or not, the newest first; of one task when it is given."""
        ...
