"""Requests: what anybody may ask of the leader, who alone turns them into state."""

from datetime import datetime

from kapelle.core.frozen import frozen
from kapelle.core.ids import QuestionId, RequestId, RunId, SpentId, TaskId
from kapelle.core.question import AnswerKind
from kapelle.core.run import RunSpec
from kapelle.core.spent import SpentAnswer
from kapelle.core.steering import Steering


@frozen
class Submit:
    """Accept a run. Its id is chosen by who asks, so that asking twice is asking once."""

    run_id: RunId
    spec: RunSpec


@frozen
class Cancel:
    """End a run, or one task of it."""

    run_id: RunId
    task_id: TaskId | None = None


@frozen
class Pause:
    """Start no new attempts of a run, or of one task of it."""

    run_id: RunId
    task_id: TaskId | None = None


@frozen
class Resume:
    """Let a paused run go on, with all tasks of it that are paused, or one task."""

    run_id: RunId
    task_id: TaskId | None = None


@frozen
class Approve:
    """Let a task go on that waits for a person."""

    run_id: RunId
    task_id: TaskId


@frozen
class Reject:
    """Refuse a task that waits for a person."""

    run_id: RunId
    task_id: TaskId
    reason: str = ""


@frozen
class Answer:
    """Answer a question of an agent."""

    run_id: RunId
    question_id: QuestionId
    answer: AnswerKind
    reason: str = ""


@frozen
class AnswerSpent:
    """Answer what is to become of a budget that is spent."""

    run_id: RunId
    spent_id: SpentId
    answer: SpentAnswer
    more: float = 0.0
    """By how much it is raised: US dollars, numbers, seconds."""
    reason: str = ""


@frozen
class Halt:
    """Halt everything: no model call passes, and no agent works."""

    run_id: RunId
    """None in particular; empty."""
    reason: str = ""


@frozen
class Unhalt:
    """Let everything go on that was halted."""

    run_id: RunId
    """None in particular; empty."""
    reason: str = ""


@frozen
class Retry:
    """Submit again, as a new run, what did not complete of a run (or one task of it and what needs that)."""

    run_id: RunId
    new_run_id: RunId
    task_id: TaskId | None = None
    base: str | None = None
    """The commit of the target to begin from, found by who asks."""


@frozen
class Scale:
    """Have so many agents of a config in a project, at work and spare together."""

    project: str
    config: str
    wanted: int | None
    """None: as the configuration says."""
    more: bool = False
    """Whether *wanted* is added to what there is or is wanted already."""
    spec: RunSpec | None = None
    """Of a run without tasks: what spares are made by. None where *wanted* is."""
    run_id: RunId = RunId("")
    """It is about no run."""


@frozen
class Deploy:
    """Give a task that waits to an agent of a config, before all others."""

    run_id: RunId
    task_id: TaskId
    config: str
    force: bool = False
    """Whatever limits say, and whatever the task requires."""


@frozen
class Unreadable:
    """What stands in the store as a request and is none: something other than Kapelle, or another version, wrote it."""

    problem: str
    run_id: RunId


Body = (
    Submit
    | Cancel
    | Pause
    | Resume
    | Approve
    | Reject
    | Answer
    | AnswerSpent
    | Halt
    | Unhalt
    | Retry
    | Scale
    | Deploy
    | Steering
)


@frozen
class Request:
    """Something asked of the leader, and what became of it."""

    request_id: RequestId
    body: Body | Unreadable
    principal: str
    asked_at: datetime
    settled_at: datetime | None = None
    refusal: str | None = None
    """Why it was refused; None when it was done (or is not settled yet)."""


@frozen
class Settlement:
    """What became of a request."""

    at: datetime | None = None
    """When it was settled; None when it is not yet."""
    refusal: str | None = None
    """Why it was refused; None when it was done (or is not settled yet)."""
