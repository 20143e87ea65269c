"""Questions: what an agent's program may do only when a person says so, and what the person said.

open -> answered (allow, deny, always)
   |--> expired (nobody answered in time: the agent's rules say what then)
   +--> withdrawn (its agent has ended)
"""

from datetime import datetime, timedelta
from enum import StrEnum

from kapelle.core.errors import IllegalTransition
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AgentId, AttemptId, QuestionId, RunId, TaskId
from kapelle.core.rules import Fallback

MARGIN = timedelta(minutes=1)
"""How long before the time limit of its attempt a question expires at the latest: the agent is to go on without an answer."""
SHARE = 0.1
"""The same as a share of that time limit, where that is less."""


class AnswerKind(StrEnum):
    """What a person may say."""

    ALLOW = "allow"
    DENY = "deny"
    ALWAYS = "always"
    """This, and what the same rules ask about, for the rest of the run."""


class QuestionState(StrEnum):
    """Where a question stands."""

    OPEN = "open"
    ANSWERED = "answered"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


QUESTION_TRANSITIONS: dict[QuestionState, frozenset[QuestionState]] = {
    QuestionState.OPEN: frozenset({QuestionState.ANSWERED, QuestionState.EXPIRED, QuestionState.WITHDRAWN}),
    QuestionState.ANSWERED: frozenset(),
    QuestionState.EXPIRED: frozenset(),
    QuestionState.WITHDRAWN: frozenset(),
}


@frozen
class Question:
    """Something that waits for a person while an agent's program waits for it."""

    question_id: QuestionId
    run_id: RunId
    task_id: TaskId
    attempt_id: AttemptId
    agent_id: AgentId
    call_id: str
    """The program's own name for what it is about to do: asked again by it, it is the same question."""
    tool: str
    what: str
    rule: str = ""
    """The rule that asks; empty when the program itself does."""
    reason: str = ""
    keys: tuple[str, ...] = ()
    """What `always` lets through."""
    default: Fallback = Fallback.DENY
    state: QuestionState = QuestionState.OPEN
    answer: AnswerKind | None = None
    answered_by: str = ""
    note: str = ""
    """Why, in the words of whoever answered."""
    asked_at: datetime
    deadline_at: datetime
    settled_at: datetime | None = None

    @property
    def allows(self) -> bool:
        """Whether it lets the call through; an open one does not."""
        if self.state is QuestionState.ANSWERED:
            return self.answer is not AnswerKind.DENY
        return self.state is QuestionState.EXPIRED and self.default is Fallback.ALLOW


ASKS = "its agent asks: "
"""How what a task waits for begins, in words, when it is an answer to a question."""


def detail(question: Question) -> str:
    """Return what the task waits for whose agent asked *question*."""
    return f"{ASKS}{question.tool}: {question.what} ({question.question_id})"


def settle(
    question: Question, to: QuestionState, now: datetime, *, answer: AnswerKind | None = None, by: str = "", note: str = ""
) -> Question:
    """Return *question* in the state *to*.

    Raises:
        IllegalTransition: it is settled already.
    """
    if to not in QUESTION_TRANSITIONS[question.state]:
        raise IllegalTransition("question", question.question_id, question.state, to)
    return replace(question, state=to, answer=answer, answered_by=by, note=note, settled_at=now)


def deadline(now: datetime, patience: timedelta, limit_at: datetime, began_at: datetime) -> datetime:
    """Return until when a question may wait that is asked *now*.

    *limit_at* is when the time limit of the agent, which was started at *began_at*, ends it, watched or not: the question is
    over before that, so that the agent can still say what it did without an answer.
    """
    margin = min(MARGIN, (limit_at - began_at) * SHARE)
    return max(now, min(now + patience, limit_at - margin))
