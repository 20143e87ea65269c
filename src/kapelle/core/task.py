"""Tasks and runs: what is to be done, where it stands, and the table of its transitions.

pending -> assigned -> running -> validating -> merging -> completed
   ^           |          |  ^        |  |         |
   +--- retry -+----------+  +-round--+--+---------+
from any of them: failed, cancelled; before work is merged: rejected; from pending: skipped
"""

from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum

from kapelle.core.budget import Allowance
from kapelle.core.errors import IllegalTransition
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AttemptId, RunId, TaskId
from kapelle.core.retry import RetryPolicy


class TaskState(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    ASSIGNED = "assigned"
    RUNNING = "running"
    VALIDATING = "validating"
    MERGING = "merging"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


TERMINAL = frozenset({TaskState.COMPLETED, TaskState.SKIPPED, TaskState.FAILED, TaskState.CANCELLED, TaskState.REJECTED})
MEETS_A_NEED = frozenset({TaskState.COMPLETED, TaskState.SKIPPED})

_ENDS = {TaskState.FAILED, TaskState.CANCELLED, TaskState.REJECTED}
TASK_TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    TaskState.PENDING: frozenset({TaskState.ASSIGNED, TaskState.SKIPPED, *_ENDS}),
    TaskState.ASSIGNED: frozenset({TaskState.RUNNING, TaskState.PENDING, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.RUNNING: frozenset({TaskState.VALIDATING, TaskState.PENDING, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.VALIDATING: frozenset({TaskState.RUNNING, TaskState.MERGING, TaskState.COMPLETED, TaskState.PENDING, *_ENDS}),
    TaskState.MERGING: frozenset({TaskState.RUNNING, TaskState.COMPLETED, TaskState.PENDING, *_ENDS}),
    **{state: frozenset() for state in TERMINAL},
}


class Wait(StrEnum):
    """What a task that is not terminal waits for."""

    NEEDS = "needs"
    PHASE = "phase"
    APPROVAL = "approval"
    RETRY = "retry"
    CAPACITY = "capacity"
    BUDGET = "budget"
    LIMIT = "limit"
    CREDENTIALS = "credentials"
    PAUSED = "paused"
    SCHEDULE = "schedule"
    PERSON = "person"


class Priority(StrEnum):
    """How much sooner than others a task goes; waiting raises every task alike, so none starves."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"


# The bonus is a head start in waiting time: a task with a bonus of ten minutes goes before every task without one that
# was submitted up to ten minutes earlier. That is ageing without a timer: ranks never change.
BONUS: dict[Priority, timedelta] = {
    Priority.LOW: timedelta(minutes=-30),
    Priority.NORMAL: timedelta(0),
    Priority.HIGH: timedelta(minutes=30),
    Priority.CRITICAL: timedelta(hours=6),
}


NEAR = 60.0
"""Seconds of rank within which tasks are equally near their turn."""
HALF = 3600.0
"""Seconds of critical path that are worth half of that."""


def rank(since: datetime, priority: Priority, path: timedelta = timedelta(0)) -> float:
    """Return the place of something in its queue, in seconds; the smallest goes first.

    Of tasks that are equally near their turn, the one with the longest critical *path* (itself, and what needs it) goes first:
    the path is a head start of less than ``NEAR``. So the index finds the right ones among however many wait, and none is held
    up for longer than that by those that matter more.
    """
    seconds = max(path.total_seconds(), 0.0)
    return (since - BONUS[priority]).timestamp() - NEAR * seconds / (seconds + HALF)


class WorkspaceKind(StrEnum):
    """Where a task works."""

    WORKTREE = "worktree"
    SCRATCH = "scratch"
    PATH = "path"


class OnFailure(StrEnum):
    """What becomes of those that need a task when it fails."""

    STOP = "stop"
    CONTINUE = "continue"


@frozen
class TaskSpec:
    """A task as it was asked for, with everything that the workflow's defaults added to it."""

    name: str
    prompt: str = ""
    """A Jinja2 template; rendered when the task is placed, with what it needs completed."""
    needs: tuple[str, ...] = ()
    agent: str = ""
    """The agent config that it is given to, or the first of several."""
    agents: tuple[str, ...] = ()
    """The agent configs that it may be given to, where there are several."""
    requires: tuple[str, ...] = ()
    """What an agent config must be able to do."""
    priority: Priority = Priority.NORMAL
    gate: str | None = None
    timeout: timedelta = timedelta(minutes=30)
    max_attempts: int = 3
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    budget: Allowance = Allowance()
    reads_only: bool = False
    result_schema: str | None = None
    """JSON Schema of the structured result, as JSON text."""
    writes: tuple[str, ...] = ()
    """Globs of what the task is expected to change."""
    phase: str | None = None
    estimate: timedelta | None = None
    approval: bool = False
    when: str | None = None
    on_failure: OnFailure = OnFailure.STOP
    workspace: WorkspaceKind = WorkspaceKind.WORKTREE
    path: str | None = None
    """The directory to work in, for ``workspace: path``."""
    item: str | None = None
    """The item of ``foreach`` that this task is for, as JSON text."""
    origin: str | None = None
    """The name in the file of a task that ``foreach`` made several of."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The agent configs that it may be given to, the preferred first."""
        return self.agents or (self.agent,)


@frozen
class Failure:
    """Why something ended as it did: a stable word for programs, a sentence for people."""

    kind: str
    message: str


@frozen
class Task:
    """One durable unit of work."""

    task_id: TaskId
    run_id: RunId
    spec: TaskSpec
    state: TaskState = TaskState.PENDING
    waits_for: Wait | None = None
    detail: str = ""
    """More about what it waits for, in words."""
    rank: float
    path: float = 0.0
    """Seconds that it and the longest chain of those that need it would probably take, when it was submitted."""
    unmet: int = 0
    """How many of its needs (and earlier phases) are not met yet."""
    due_at: datetime | None = None
    """Not before this time."""
    approved: bool = False
    attempts: int = 0
    """How many attempts have counted so far, the current one included."""
    attempt_id: AttemptId | None = None
    round: int = 0
    submitted_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    failure: Failure | None = None
    summary: str = ""
    result: str | None = None
    """The structured result, as JSON text."""
    commit: str | None = None
    """The commit on the target (or its integration ref) that holds the change."""
    retry_of: TaskId | None = None
    paused: bool = False
    """Whether a person has paused this very task."""

    @property
    def name(self) -> str:
        """The name by which the workflow knows it."""
        return self.spec.name


def advance(task: Task, to: TaskState, now: datetime) -> Task:
    """Return *task* in the state *to*; the caller adds what else changes.

    Raises:
        IllegalTransition: the table has no such transition.
    """
    if to not in TASK_TRANSITIONS[task.state]:
        raise IllegalTransition("task", task.task_id, task.state, to)
    started = task.started_at
    if started is None and to is TaskState.ASSIGNED:
        started = now
    return replace(
        task,
        state=to,
        waits_for=None,
        detail="",
        due_at=None,
        started_at=started,
        ended_at=now if to in TERMINAL else None,
    )


def how_it_ended(state: str) -> str:
    """Say of a run or a task in words how it ended: it ..."""
    return "failed" if state == "failed" else f"was {state}"
