"""What the Python API gives back: frozen values, none of which changes afterwards."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from kapelle.core.budget import Usage
from kapelle.core.frozen import frozen
from kapelle.core.task import TERMINAL


@frozen
class SubmittedTask:
    """A task that was accepted."""

    run_id: str
    task_id: str
    name: str


@frozen
class TaskResult:
    """How a task ended, or how far it is."""

    task_id: str
    run_id: str
    name: str
    state: str
    """One of the task states, such as ``completed`` or ``failed``."""
    summary: str
    """The agent's last words."""
    result: Any
    """The structured result, if one was asked for."""
    commit: str | None
    """The merge commit that holds its work."""
    attempts: int
    usage: Usage
    cost_usd: float
    elapsed: timedelta | None
    failure: str | None
    """Why it failed, in words for people."""

    @property
    def ok(self) -> bool:
        """Whether it was completed."""
        return self.state == "completed"

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in {state.value for state in TERMINAL}


@frozen
class RunResult:
    """How a run ended, or how far it is."""

    run_id: str
    name: str
    state: str
    tasks: Mapping[str, TaskResult]
    """By name."""
    usage: Usage
    cost_usd: float
    elapsed: timedelta
    held_up: str
    """Why the target could not be moved; empty when it was, or did not have to be."""

    @property
    def ok(self) -> bool:
        """Whether everything was completed."""
        return self.state == "completed"

    @property
    def failed(self) -> Sequence[TaskResult]:
        """The tasks that ended otherwise than completed or skipped."""
        return [task for task in self.tasks.values() if task.ended and task.state not in {"completed", "skipped"}]


@frozen
class Status:
    """What goes on."""

    leader_pid: int | None
    """The process that leads, or None when nobody does."""
    agents: int
    """How many agents are live."""
    slots: int
    runs: Sequence[RunResult]
    """The runs that have not ended."""
    accounts: Sequence[str] = ()
    """What keeps agents from starting, in words: one sentence for each account that is not open."""
