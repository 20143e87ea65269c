"""Events of isolation: what was kept from an agent or a check, and what it met."""

from typing import ClassVar

from kapelle.core.event import Event
from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId


@frozen
class LimitMet(Event):
    """An agent's processes met a limit: of memory, of disk, of how many there may be."""

    kind: ClassVar[str] = "limit.met"
    agent_id: AgentId
    reason: str
    """Which, in words for people."""
    out_of_memory: bool = False


@frozen
class SandboxLeft(Event):
    """What a sandbox had made could not be looked through or removed; the next leader tries again."""

    kind: ClassVar[str] = "sandbox.left"
    sandbox: str
    reason: str


@frozen
class SandboxSwept(Event):
    """What a sandbox had made for a process that nobody stands for any more was removed, with all that was left inside."""

    kind: ClassVar[str] = "sandbox.swept"
    sandbox: str
    keys: tuple[str, ...]


@frozen
class NetworkAllowed(Event):
    """The proxy let somebody through."""

    kind: ClassVar[str] = "network.allowed"
    key: str
    """Who: an agent's id, or a workspace's with ``-setup`` or ``-check``."""
    host: str
    port: int
    times: int = 1
    """How often, since it was last told."""


@frozen
class NetworkDenied(Event):
    """The proxy let somebody not through."""

    kind: ClassVar[str] = "network.denied"
    key: str
    """Who: an agent's id, or a workspace's with ``-setup`` or ``-check``."""
    host: str
    port: int
    reason: str
    times: int = 1
    """How often, since it was last told."""
