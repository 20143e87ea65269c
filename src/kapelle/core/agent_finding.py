"""What is known of agents, whether they live or not: a part of the store's port."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from kapelle.core.agent import Agent
from kapelle.core.budget import Spend
from kapelle.core.ids import AccountId, AgentId, RunId, TaskId


class AgentFinding(Protocol):
    """Agents by what people know of them."""

    def find(self, prefix: str) -> Sequence[Agent]:
        """Return at most two agents whose id begins with *prefix*, the newest first."""
        ...

    def newest(self, limit: int, task_id: TaskId | None = None) -> Sequence[Agent]:
        """Return agents, live or not, the newest first; of one task when it is given."""
        ...

    def worked(self, run_id: RunId) -> dict[TaskId, timedelta]:
        """Return for how long agents worked for each task of a run, those apart that are live.

        That is while they were there, but for the time for which a person had frozen them.
        """
        ...

    def worked_since(
        self, since: datetime | None, *, project: str | None = None, account_id: AccountId | None = None
    ) -> timedelta:
        """Return for how long agents of a project or an account (or all) worked *since* a time; those apart that are live.

        When one stood still is not kept, only for how long: it counts as if that had been since then.
        """
        ...

    def spent(self, run_id: RunId) -> dict[AgentId, Spend]:
        """Return what each agent of a run has spent."""
        ...
