"""Events of command rules, and of the questions that they ask."""

from datetime import datetime
from typing import ClassVar

from kapelle.core.event import Event
from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId, QuestionId


@frozen
class CommandDenied(Event):
    """A rule forbade an agent something; the agent was told why."""

    kind: ClassVar[str] = "command.denied"
    agent_id: AgentId
    tool: str
    what: str
    rule: str
    reason: str = ""
    times: int = 1
    """How often, since it was last told."""


@frozen
class CommandAllowed(Event):
    """A rule would have asked about something that is allowed already, or that a person will see before it is merged."""

    kind: ClassVar[str] = "command.allowed"
    agent_id: AgentId
    tool: str
    what: str
    rule: str
    reason: str = ""
    times: int = 1
    """How often, since it was last told."""


@frozen
class QuestionAsked(Event):
    """An agent waits for a person to let it do something."""

    kind: ClassVar[str] = "question.asked"
    question_id: QuestionId
    agent_id: AgentId
    tool: str
    what: str
    rule: str = ""
    reason: str = ""
    deadline_at: datetime
    default: str = ""


@frozen
class QuestionAnswered(Event):
    """A person answered."""

    kind: ClassVar[str] = "question.answered"
    question_id: QuestionId
    answer: str
    principal: str
    reason: str = ""


@frozen
class QuestionExpired(Event):
    """Nobody answered in time; what the agent's rules say for that case was done."""

    kind: ClassVar[str] = "question.expired"
    question_id: QuestionId
    default: str


@frozen
class QuestionWithdrawn(Event):
    """The agent that asked has ended."""

    kind: ClassVar[str] = "question.withdrawn"
    question_id: QuestionId


@frozen
class WardenFailed(Event):
    """An agent's program cannot ask: what it would have to ask about is denied."""

    kind: ClassVar[str] = "warden.failed"
    agent_id: AgentId
    reason: str


@frozen
class WardenRefused(Event):
    """Somebody spoke at an agent's warden who is not that agent."""

    kind: ClassVar[str] = "warden.refused"
    agent_id: AgentId
    reason: str
    times: int = 1
    """How often, since it was last told."""
