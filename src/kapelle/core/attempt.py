"""Attempts: one try at a task by one agent, and how it ended.

An attempt is fenced by (term, number): a leader re-stamps what it adopts with its own term, and whatever arrives under an
older stamp is refused.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from kapelle.core.conversation import NOT_THE_AGENTS_FAULT, Trouble, TurnEnded
from kapelle.core.frozen import frozen
from kapelle.core.ids import AttemptId, PromptId, RunId, TaskId, WorkspaceId


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    GATE_FAILED = "gate_failed"
    NO_WORK = "no_work"
    WRONG_RESULT = "wrong_result"
    AGENT_FAILED = "agent_failed"
    TIMED_OUT = "timed_out"
    BUDGET = "budget"
    CONFLICT = "conflict"
    SETUP_FAILED = "setup_failed"
    LAUNCH_FAILED = "launch_failed"
    LIMITED = "limited"
    CREDENTIALS = "credentials"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    CONTEXT_OVERFLOW = "context_overflow"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    STOPPED = "stopped"
    """A person ended its agent, whose program cannot go on with what it had begun."""


# Outcomes after which trying again can help and which use up one of the task's attempts.
COUNTS = frozenset(
    {
        Outcome.GATE_FAILED,
        Outcome.NO_WORK,
        Outcome.WRONG_RESULT,
        Outcome.AGENT_FAILED,
        Outcome.TIMED_OUT,
        Outcome.CONFLICT,
        Outcome.SETUP_FAILED,
        Outcome.LAUNCH_FAILED,
    }
)
# Outcomes that are nobody's fault: the task tries again later without losing an attempt.
TRIES_AGAIN_FREELY = frozenset({Outcome.LIMITED, Outcome.CREDENTIALS, Outcome.UNREACHABLE, Outcome.STOPPED})


@frozen
class Attempt:
    """One try at a task by one agent."""

    attempt_id: AttemptId
    task_id: TaskId
    run_id: RunId
    number: int
    term: int
    config: str
    """The name of the agent config."""
    conversation_id: str
    round: int = 0
    gate_rounds: int = 0
    """How often a failed check went back to the agent."""
    merge_returns: int = 0
    """How often the merge queue sent the change back."""
    result_rounds: int = 0
    """How often a wrong structured result went back."""
    interruptions: int = 0
    """How often in a row the conversation was resumed after an error of the model API."""
    interrupted_at: datetime | None = None
    """When the first of them was; None while the model answers."""
    overflows: int = 0
    """How often a fresh conversation was begun because the model could not take any more of the last one."""
    overflow_calls: int = 0
    """How many tools had been called when it last was: none since means that the fresh one was too long at once."""
    crashes: int = 0
    """How often the conversation was resumed after its program had ended in the middle of a turn."""
    tool_calls: int = 0
    own_cost_usd: float = 0.0
    """The conversation's cost by the program's own count, as far as it was booked; used only without the gateway."""
    workspace_id: WorkspaceId | None = None
    started_at: datetime
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    home: AttemptId | None = None
    """Whose home its agent has, where that had an earlier task; None: its own."""
    held_by: str = ""
    """Who has taken its conversation over; empty while the engine leads it."""


def home_of(attempt: Attempt) -> AttemptId:
    """Return by which attempt the home of the agents of *attempt* is called."""
    return attempt.home or attempt.attempt_id


class PromptState(StrEnum):
    """How far a prompt got."""

    PENDING = "pending"
    SENT = "sent"
    TAKEN = "taken"
    ANSWERED = "answered"
    DROPPED = "dropped"


@frozen
class PromptRecord:
    """A prompt of an attempt: committed before it is sent, so that it is never sent twice under two ids."""

    prompt_id: PromptId
    attempt_id: AttemptId
    round: int
    text: str
    state: PromptState = PromptState.PENDING
    aside: bool = False
    """Whether it is said while a turn goes on: its agent reads it when it comes to it, in that turn or the next."""
    sender: str = ""
    """Who wrote it, when that was a person and not Kapelle."""


def next_to_send(prompts: Sequence[PromptRecord], *, adopted: bool = False) -> PromptRecord | None:
    """Return which of an attempt's *prompts* is to be sent now: one after the other, but what is said aside at once.

    Nothing is said aside to an *adopted* agent: whoever started it has gone, and it could not be written to.
    """
    pending = [prompt for prompt in prompts if prompt.state is PromptState.PENDING]
    if any(prompt.state in {PromptState.SENT, PromptState.TAKEN} for prompt in prompts):
        pending = [prompt for prompt in pending if prompt.aside and not adopted]
    return pending[0] if pending else None


def outcome_of(trouble: Trouble) -> Outcome:
    """Return the outcome that a turn's *trouble* means for its attempt."""
    if trouble in {Trouble.USAGE_LIMIT, Trouble.RATE_LIMITED}:
        return Outcome.LIMITED
    if trouble in {Trouble.LOGIN_EXPIRED, Trouble.INVALID_KEY}:
        return Outcome.CREDENTIALS
    if trouble in {Trouble.BUDGET, Trouble.REFUSED, Trouble.CONTEXT_OVERFLOW}:
        return Outcome(trouble.value)
    if trouble is Trouble.HALTED or trouble in NOT_THE_AGENTS_FAULT:
        return Outcome.UNREACHABLE
    return Outcome.AGENT_FAILED


def claims_without_work(turn: TurnEnded, *, tool_calls: int, changed: bool, reads_only: bool, reports: bool) -> bool:
    """Say whether a claim of success has nothing behind it.

    From a driver that *reports* tool calls, no tool call and no change is never success, unless the task only reads.
    """
    return turn.trouble is None and reports and tool_calls == 0 and not changed and not reads_only
