"""Every event: an immutable fact in the log, named in the past tense.

The log is the one feed for the live view, reports, the API and plug-ins. An event is written in the transaction that changes
the state it speaks of. ``KINDS`` maps the stable name of each kind (``task.completed``) to its class.
"""

from datetime import datetime
from typing import ClassVar

from kapelle.core import (
    account_events,
    batch_events,
    brake_events,
    isolation_events,
    liveness_events,
    pool_events,
    rule_events,
    secret_events,
    steering_events,
)
from kapelle.core.budget import Usage
from kapelle.core.event import Event
from kapelle.core.frozen import frozen
from kapelle.core.gate import CheckState
from kapelle.core.ids import AgentId, AttemptId, ChangeId
from kapelle.core.placing import Considered
from kapelle.core.task import Failure, TaskState, Wait


@frozen
class Entry:
    """An event as it stands in the log."""

    seq: int
    at: datetime
    term: int
    event: Event


# --- The leader -------------------------------------------------------------------------------------------------------


@frozen
class LeadTaken(Event):
    """A process took the lead."""

    kind: ClassVar[str] = "lead.taken"
    term: int
    pid: int


@frozen
class ClockSetBack(Event):
    """The clock was set back since the last leader: what waited for a time was moved by as much."""

    kind: ClassVar[str] = "clock.set_back"
    seconds: float


@frozen
class LeadGivenUp(Event):
    """The leader ended in order."""

    kind: ClassVar[str] = "lead.given_up"
    term: int


@frozen
class RequestRefused(Event):
    """A request could not be applied."""

    kind: ClassVar[str] = "request.refused"
    request_id: str
    reason: str


# --- Runs -------------------------------------------------------------------------------------------------------------


@frozen
class RunSubmitted(Event):
    """A run was accepted, with all its tasks."""

    kind: ClassVar[str] = "run.submitted"
    name: str
    tasks: int
    principal: str = ""


@frozen
class RunPaused(Event):
    """No new attempts of this run."""

    kind: ClassVar[str] = "run.paused"
    principal: str = ""


@frozen
class RunResumed(Event):
    """The pause was lifted."""

    kind: ClassVar[str] = "run.resumed"
    principal: str = ""


@frozen
class RunEnded(Event):
    """Every task of the run is terminal and what was to be delivered is."""

    kind: ClassVar[str] = "run.ended"
    state: str
    completed: int
    failed: int
    other: int


# --- Tasks: one kind per state ----------------------------------------------------------------------------------------


@frozen
class TaskSubmitted(Event):
    """A task was accepted."""

    kind: ClassVar[str] = "task.submitted"
    name: str


@frozen
class TaskWaited(Event):
    """What a task waits for has changed."""

    kind: ClassVar[str] = "task.waited"
    waits_for: Wait | None
    detail: str = ""


@frozen
class TaskApproved(Event):
    """A person let the task go on."""

    kind: ClassVar[str] = "task.approved"
    principal: str = ""


@frozen
class TaskMoved(Event):
    """A task went from one state to another; each subclass is one destination."""

    kind: ClassVar[str] = "task.moved"
    before: TaskState
    note: str = ""


@frozen
class TaskReturned(TaskMoved):
    """The task is pending again and will be tried again."""

    kind: ClassVar[str] = "task.returned"


@frozen
class TaskAssigned(TaskMoved):
    """The task has an agent."""

    kind: ClassVar[str] = "task.assigned"


@frozen
class TaskStarted(TaskMoved):
    """The agent has its prompt, the first or a further one."""

    kind: ClassVar[str] = "task.started"


@frozen
class TaskValidating(TaskMoved):
    """The agent says it is done; the gate looks at its work."""

    kind: ClassVar[str] = "task.validating"


@frozen
class TaskMerging(TaskMoved):
    """The change is in the merge queue."""

    kind: ClassVar[str] = "task.merging"


@frozen
class TaskCompleted(TaskMoved):
    """Done, and proven."""

    kind: ClassVar[str] = "task.completed"
    commit: str | None = None


@frozen
class TaskSkipped(TaskMoved):
    """Its ``when`` was false."""

    kind: ClassVar[str] = "task.skipped"


@frozen
class TaskFailed(TaskMoved):
    """It will not be tried again."""

    kind: ClassVar[str] = "task.failed"
    failure: Failure | None = None


@frozen
class TaskCancelled(TaskMoved):
    """A person ended it."""

    kind: ClassVar[str] = "task.cancelled"


@frozen
class TaskRejected(TaskMoved):
    """A person refused it."""

    kind: ClassVar[str] = "task.rejected"


MOVED: dict[TaskState, type[TaskMoved]] = {
    TaskState.PENDING: TaskReturned,
    TaskState.ASSIGNED: TaskAssigned,
    TaskState.RUNNING: TaskStarted,
    TaskState.VALIDATING: TaskValidating,
    TaskState.MERGING: TaskMerging,
    TaskState.COMPLETED: TaskCompleted,
    TaskState.SKIPPED: TaskSkipped,
    TaskState.FAILED: TaskFailed,
    TaskState.CANCELLED: TaskCancelled,
    TaskState.REJECTED: TaskRejected,
}


# --- Attempts and agents ----------------------------------------------------------------------------------------------


@frozen
class AttemptStarted(Event):
    """A try at the task began."""

    kind: ClassVar[str] = "attempt.started"
    attempt_id: AttemptId
    number: int
    config: str
    host: str = ""
    considered: tuple[Considered, ...] = ()
    """The agent configs and hosts that there was to choose from, the one that was taken first."""


@frozen
class AttemptEnded(Event):
    """The try ended."""

    kind: ClassVar[str] = "attempt.ended"
    attempt_id: AttemptId
    outcome: str
    message: str = ""


@frozen
class WorkspacePrepared(Event):
    """The agent's directory is ready."""

    kind: ClassVar[str] = "workspace.prepared"
    path: str
    base: str = ""


@frozen
class WorkspaceRemoved(Event):
    """The agent's directory is gone; its work is merged or kept."""

    kind: ClassVar[str] = "workspace.removed"
    path: str


@frozen
class WorkspaceStuck(Event):
    """The agent's directory could not be kept and removed; it stays where it is, and is tried again."""

    kind: ClassVar[str] = "workspace.stuck"
    path: str
    reason: str


@frozen
class SnapshotKept(Event):
    """Unmerged work was kept under ``refs/kapelle/``."""

    kind: ClassVar[str] = "snapshot.kept"
    ref: str
    commit: str


@frozen
class AgentDeployed(Event):
    """An agent's process was started."""

    kind: ClassVar[str] = "agent.deployed"
    agent_id: AgentId
    config: str
    pid: int


@frozen
class AgentAdopted(Event):
    """A new leader found the agent alive and reads on."""

    kind: ClassVar[str] = "agent.adopted"
    agent_id: AgentId


@frozen
class AgentStopped(Event):
    """An agent's process has ended."""

    kind: ClassVar[str] = "agent.stopped"
    agent_id: AgentId
    exit_code: int | None = None


@frozen
class AgentReaped(Event):
    """A process that carried this store's id without a live row was ended."""

    kind: ClassVar[str] = "agent.reaped"
    pid: int


@frozen
class PromptSent(Event):
    """A prompt went to the agent."""

    kind: ClassVar[str] = "prompt.sent"
    prompt_id: str
    round: int
    text: str
    sender: str = ""
    """The person who wrote it; empty when it is Kapelle's."""


@frozen
class AgentSaid(Event):
    """The agent wrote something."""

    kind: ClassVar[str] = "agent.said"
    text: str


@frozen
class AgentUsedTool(Event):
    """The agent called a tool."""

    kind: ClassVar[str] = "agent.used_tool"
    tool: str
    about: str = ""


@frozen
class AgentToolFailed(Event):
    """A tool answered the agent with an error."""

    kind: ClassVar[str] = "agent.tool_failed"
    about: str = ""


@frozen
class AgentWasRefused(Event):
    """Tools were refused to the agent for want of permission."""

    kind: ClassVar[str] = "agent.was_refused"
    tools: tuple[str, ...]


@frozen
class AgentAnswered(Event):
    """The agent's turn ended."""

    kind: ClassVar[str] = "agent.answered"
    text: str = ""
    trouble: str | None = None
    turns: int = 0


@frozen
class AgentBabbled(Event):
    """The agent's program wrote something that its driver does not know; kept for whoever looks."""

    kind: ClassVar[str] = "agent.babbled"
    what: str
    raw: str


@frozen
class ModelCalled(Event):
    """A call to the model ended."""

    kind: ClassVar[str] = "model.called"
    model: str
    usage: Usage
    cost_usd: float
    status: int
    error: str = ""
    trouble: str | None = None


@frozen
class ModelCallRetried(Event):
    """The agent's program tries a model call again."""

    kind: ClassVar[str] = "model.retried"
    attempt: int
    status: int | None = None


@frozen
class ConversationForked(Event):
    """The model could take no more of the conversation: a fresh one goes on with the same work."""

    kind: ClassVar[str] = "conversation.forked"
    attempt_id: AttemptId
    reason: str = ""


@frozen
class BudgetReached(Event):
    """Nothing more may be spent under this budget."""

    kind: ClassVar[str] = "budget.reached"
    budget: str
    resource: str
    """``usd``, ``tokens``, ``cached_tokens``, ``turns`` or ``time`` (in seconds)."""
    limit: float
    spent: float


@frozen
class BudgetWarned(Event):
    """Four fifths of a budget are spent."""

    kind: ClassVar[str] = "budget.warned"
    budget: str
    resource: str
    limit: float
    spent: float
    key: str = ""
    """What spending is added up under: of two budgets of one name, another."""


# --- Gates and merges -------------------------------------------------------------------------------------------------


@frozen
class CheckEnded(Event):
    """A check of a gate ended."""

    kind: ClassVar[str] = "check.ended"
    gate: str
    check: str
    state: CheckState
    exit_code: int | None = None
    seconds: float = 0.0
    tail: str = ""
    where: str = "workspace"
    """``workspace``, or ``merged`` for the merged tree."""
    limit: str = ""
    """The limit that it met, in words for people."""


@frozen
class GatePassed(Event):
    """A gate passed on a tree."""

    kind: ClassVar[str] = "gate.passed"
    gate: str
    tree: str
    receipt: str
    reused: bool = False
    where: str = "workspace"


@frozen
class GateFailed(Event):
    """A required check of a gate failed."""

    kind: ClassVar[str] = "gate.failed"
    gate: str
    tree: str
    check: str
    where: str = "workspace"


@frozen
class ChangeQueued(Event):
    """A change entered the merge queue."""

    kind: ClassVar[str] = "change.queued"
    change_id: ChangeId
    target: str
    head: str


@frozen
class ChangeHeld(Event):
    """A change touches protected files, and waits for a person."""

    kind: ClassVar[str] = "change.held"
    change_id: ChangeId
    files: tuple[str, ...]


@frozen
class ChangeApproved(Event):
    """A person let a change of protected files through."""

    kind: ClassVar[str] = "change.approved"
    change_id: ChangeId
    principal: str


@frozen
class ChangeConflicted(Event):
    """A change does not fit what was merged meanwhile."""

    kind: ClassVar[str] = "change.conflicted"
    change_id: ChangeId
    files: tuple[str, ...]


@frozen
class ChangeReturned(Event):
    """A change went back to its agent."""

    kind: ClassVar[str] = "change.returned"
    change_id: ChangeId
    reason: str


@frozen
class ChangeMerged(Event):
    """A change is on the integration ref, and its gate passed there."""

    kind: ClassVar[str] = "change.merged"
    change_id: ChangeId
    target: str
    commit: str
    receipt: str = ""


@frozen
class TargetDelivered(Event):
    """The target was moved."""

    kind: ClassVar[str] = "target.delivered"
    target: str
    commit: str


@frozen
class TargetHeldUp(Event):
    """The target could not be moved; the work is safe on the integration ref."""

    kind: ClassVar[str] = "target.held_up"
    target: str
    reason: str
    remedy: str = ""


def _kinds() -> dict[str, type[Event]]:
    # Not by __subclasses__: with slots=True a dataclass is made anew, and the first one still counts as a subclass.
    further = (
        *(account_events, batch_events, brake_events, isolation_events),
        *(liveness_events, pool_events, rule_events, secret_events, steering_events),
    )
    values = (*globals().values(), *(value for module in further for value in vars(module).values()))
    classes = [value for value in values if isinstance(value, type) and issubclass(value, Event)]
    return {kind.kind: kind for kind in classes if kind.kind}


KINDS: dict[str, type[Event]] = _kinds()
