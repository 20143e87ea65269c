"""What is known of agents, whether they live or not: a part of the store's port."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from kapelle.core.agent import Agent
from kapelle.core.budget import Spend
from kapelle.core.ids import AgentId, RunId, TaskId


class AgentFinding(Protocol):
    """Agents by what people know of them."""

    def find(self, prefix: str) -> Sequence[Agent]:
        """Return at most two agents whose id begins with *prefix*, the newest first."""
        ...

    def newest(self, limit: int, task_id: TaskId | None = None) -> Sequence[Agent]:
        """Return agents, live or not, the newest first; of one task when it is given."""
        ...

    def worked(self, run_id: RunId) -> dict[TaskId, timedelta]:
        """Return for how long agents were there for each task of a run, those apart that are live."""
        ...

    def spent(self, run_id: RunId) -> dict[AgentId, Spend]:
        """Return what each agent of a run has spent."""
        ...
