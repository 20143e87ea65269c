"""Events of the pool: agents that were started before there was a task for them."""

from typing import ClassVar

from kapelle.core.event import Event
from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId


@frozen
class SpareReady(Event):
    """An agent without a task waits for one, in a workspace that is ready."""

    kind: ClassVar[str] = "spare.ready"
    agent_id: AgentId
    config: str
    pid: int


@frozen
class SpareGiven(Event):
    """A spare was given a task: it is that task's agent from now on."""

    kind: ClassVar[str] = "spare.given"
    agent_id: AgentId
    config: str


@frozen
class AgentCleared(Event):
    """An agent whose task is merged was made as new: its program may be given another task of the run."""

    kind: ClassVar[str] = "agent.cleared"
    agent_id: AgentId
    config: str


@frozen
class AgentWorn(Event):
    """An agent whose task is merged could not be made as new: its program ends, and other tasks get theirs as ever."""

    kind: ClassVar[str] = "agent.worn"
    agent_id: AgentId
    reason: str


@frozen
class SpareEnded(Event):
    """A spare was ended without ever having had a task, or ended by itself."""

    kind: ClassVar[str] = "spare.ended"
    agent_id: AgentId
    config: str
    reason: str


@frozen
class SpareFailed(Event):
    """A spare could not be started: none of its kind is tried again for a while, and tasks get their agents as ever."""

    kind: ClassVar[str] = "spare.failed"
    config: str
    reason: str


@frozen
class TaskAssigned(Event):
    """A person gave a task to agents of a config, before all others."""

    kind: ClassVar[str] = "task.given"
    config: str
    forced: bool
    """Whatever limits say, and whatever the task requires."""
    principal: str


@frozen
class PoolScaled(Event):
    """A person wants so many agents of a config, or leaves it to the configuration again."""

    kind: ClassVar[str] = "pool.scaled"
    project: str
    config: str
    wanted: int | None
    """None: as the configuration says."""
    principal: str
