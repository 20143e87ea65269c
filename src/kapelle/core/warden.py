"""The port at which agents' programs ask before they do something, and who answers them.

Each agent has a warden of its own: a Unix socket called ``SOCKET`` in a folder that no other agent's sandbox shows. On it, one
JSON object on one line is asked (``token``, and the fields of ``Call``) and one is answered (``verdict``, ``reason``); that may
take as long as a person does. Nothing can be answered there, only asked. When the leader dies the connection ends; who asked
tries again until a new leader listens in the same place, and what is asked under the same ``call_id`` is the same question.
"""

from dataclasses import field
from datetime import timedelta
from typing import Protocol

from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId
from kapelle.core.rules import Call, Ruling

SOCKET = "ask"


@frozen
class WardenAccess:
    """How an agent's program reaches its warden."""

    folder: str
    """Holds the socket; made by the warden, and shown to that agent's sandbox alone."""
    token: str = field(repr=False)
    """The agent's own; worth nothing anywhere else."""
    patience: timedelta
    """How long it may go without an answer; then what it asked for is denied."""


class Judge(Protocol):
    """Who is asked."""

    async def judge(self, agent_id: AgentId, call: Call) -> Ruling:
        """Return what is decided of *call*: allow, deny, or pass (nothing; the program's own permissions decide)."""
        ...

    def refused(self, agent_id: AgentId, reason: str) -> None:
        """Take note that somebody spoke at the warden of *agent_id* who is not that agent. Returns at once."""
        ...


class Warden(Protocol):
    """The places at which agents' programs ask."""

    async def start(self, judge: Judge) -> None:
        """Begin to pass on what is asked."""
        ...

    def admit(self, agent_id: AgentId, access: WardenAccess) -> None:
        """Listen for *agent_id*, in the place of an earlier leader if there was one; no effect when it does. Returns at once.

        Raises:
            HostFailed: it cannot listen there.
        """
        ...

    def dismiss(self, agent_id: AgentId) -> None:
        """Listen for *agent_id* no more. Returns at once."""
        ...

    async def stop(self) -> None:
        """Listen for nobody; whoever waits for an answer asks the next leader."""
        ...
