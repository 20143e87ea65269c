"""Events of what people do about one agent, or one task."""

from typing import ClassVar

from kapelle.core.event import Event
from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId, PromptId


@frozen
class TaskPaused(Event):
    """A person paused a task: it begins no new attempt, and gets no new agent."""

    kind: ClassVar[str] = "task.paused"
    principal: str


@frozen
class TaskResumed(Event):
    """A person let a paused task go on."""

    kind: ClassVar[str] = "task.resumed"
    principal: str


@frozen
class AgentFrozen(Event):
    """An agent stands still, and its time limit with it."""

    kind: ClassVar[str] = "agent.frozen"
    agent_id: AgentId
    principal: str


@frozen
class AgentNotFrozen(Event):
    """An agent was to stand still and does not; it goes on."""

    kind: ClassVar[str] = "agent.not_frozen"
    agent_id: AgentId
    reason: str


@frozen
class AgentThawed(Event):
    """A frozen agent goes on."""

    kind: ClassVar[str] = "agent.thawed"
    agent_id: AgentId
    principal: str


@frozen
class PromptQueued(Event):
    """A person has something to say to an agent; it is said when its turn is over."""

    kind: ClassVar[str] = "prompt.queued"
    agent_id: AgentId
    prompt_id: PromptId
    principal: str
    length: int
    """Characters."""


@frozen
class PromptCarriedOver(Event):
    """What a person had to say was not heard in an attempt that has ended; the next one hears it, after its own prompt."""

    kind: ClassVar[str] = "prompt.carried_over"
    before: PromptId
    """The prompt that was not said."""
    prompt_id: PromptId
    principal: str
    length: int
    """Characters."""


@frozen
class PromptUnheard(Event):
    """What a person had to say to an agent was heard by nobody: its task ended before."""

    kind: ClassVar[str] = "prompt.unheard"
    prompt_id: PromptId
    principal: str
    length: int
    """Characters."""


@frozen
class TerminalFailed(Event):
    """An agent was to have a session in which people see it, and has none; it goes on without."""

    kind: ClassVar[str] = "terminal.failed"
    agent_id: AgentId
    reason: str


@frozen
class ConversationTakenOver(Event):
    """A person goes on with a conversation; its agent is ended."""

    kind: ClassVar[str] = "conversation.taken_over"
    agent_id: AgentId
    principal: str


@frozen
class ConversationHandedBack(Event):
    """The person has left; the engine goes on with the conversation."""

    kind: ClassVar[str] = "conversation.handed_back"
    principal: str
    reason: str = ""
    """Why the person could not go on with it; empty when the person did."""


@frozen
class PersonTyped(Event):
    """A person said something to an agent on its own screen."""

    kind: ClassVar[str] = "person.typed"
    agent_id: AgentId
    text: str
    principal: str = ""
    """Who has taken the conversation over; empty where somebody only attached to its screen."""


@frozen
class AgentStopAsked(Event):
    """A person asked for the end of an agent."""

    kind: ClassVar[str] = "agent.stop_asked"
    agent_id: AgentId
    principal: str
    at_once: bool = False
