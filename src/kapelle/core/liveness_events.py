"""Events of liveness: what an agent was found to be doing, what was done about it, and bounds that were passed by."""

from datetime import datetime
from typing import ClassVar

from kapelle.core.event import Event
from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId


@frozen
class AgentNoted(Event):
    """An agent was found to do something else than work; nothing was done about it yet."""

    kind: ClassVar[str] = "agent.noted"
    agent_id: AgentId
    condition: str
    since: datetime
    evidence: tuple[str, ...] = ()
    """What was seen, in words."""
    sources: tuple[str, ...] = ()
    """Where it was seen."""


@frozen
class AgentRecovered(Event):
    """An agent works again."""

    kind: ClassVar[str] = "agent.recovered"
    agent_id: AgentId
    after: str
    """What it did before."""
    since: datetime
    """From when on it had done that."""


@frozen
class AgentProbed(Event):
    """An agent that looks stuck was measured anew, and what of it was stopped was let go on."""

    kind: ClassVar[str] = "agent.probed"
    agent_id: AgentId
    condition: str
    since: datetime
    evidence: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@frozen
class AgentNudged(Event):
    """An agent was told what it looks like from outside; its turn goes on."""

    kind: ClassVar[str] = "agent.nudged"
    agent_id: AgentId
    condition: str
    since: datetime
    evidence: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@frozen
class AgentInterrupted(Event):
    """An agent's turn was broken off, and it was prompted anew with what was seen; nothing of its conversation is lost."""

    kind: ClassVar[str] = "agent.interrupted"
    agent_id: AgentId
    condition: str
    since: datetime
    evidence: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@frozen
class AgentRestarted(Event):
    """An agent's program was ended; another goes on with its conversation in its workspace. It counts as no failed attempt."""

    kind: ClassVar[str] = "agent.restarted"
    agent_id: AgentId
    condition: str
    since: datetime
    evidence: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@frozen
class AgentGivenUp(Event):
    """An agent got stuck again and again: its attempt has failed."""

    kind: ClassVar[str] = "agent.given_up"
    agent_id: AgentId
    condition: str
    since: datetime
    evidence: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@frozen
class AlertRaised(Event):
    """A bound that somebody set was passed by."""

    kind: ClassVar[str] = "alert.raised"
    alert: str
    """Its name, as in the project's file."""
    limit: float
    value: float
    told: str
    """What it says, in words for people."""


@frozen
class AlertCleared(Event):
    """What a bound holds for is within it again."""

    kind: ClassVar[str] = "alert.cleared"
    alert: str
    limit: float
    value: float
