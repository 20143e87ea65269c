r"""Connections to the gateway: those that have not said yet whose they are, and those of each agent. Of both there are so many.

    in --a head with a token that is known--> its agent's
     \--nothing for too long, or too many others came since--> closed

Agents say who they are at once: whoever opens connections and says nothing is in nobody's way, since the oldest go first.
"""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kapelle.adapters.system.files import share
from kapelle.core.ids import AgentId

UNKNOWN = 128
"""Connections that have not said whose they are."""
OF_ONE = 64
"""Connections of one agent: several calls at once, and those that are kept for the next."""
HEAD_S = 30.0
"""Seconds within which whoever connects has to have said who they are."""
LONGEST_HEAD = 1 << 16
"""Bytes of a request beside its body."""
PER_BYTE = 8
"""Bytes that a byte of a body may take to be sent in pieces, at most."""
LOG = logging.getLogger("kapelle.gateway")
"""What a web server has to say: of what agents send it says nothing, or they would write on the terminal."""


class Connections:
    """All connections of one gateway."""

    def __init__(self) -> None:
        self._unknown: dict[Connection, asyncio.TimerHandle] = {}
        self._of: dict[AgentId, set[Connection]] = {}
        self._by_address: dict[object, Connection] = {}

    def entered(self, connection: "Connection") -> None:
        """Take note of somebody new; whoever has said nothing for the longest time makes room for them."""
        if len(self._unknown) >= share(UNKNOWN):
            next(iter(self._unknown)).transport.abort()
        loop = asyncio.get_running_loop()
        self._unknown[connection] = loop.call_later(HEAD_S, connection.transport.abort)
        self._by_address[connection.client] = connection

    def left(self, connection: "Connection") -> None:
        """Forget one that has ended."""
        self._take_out(connection)
        self._by_address.pop(connection.client, None)

    def belongs(self, client: object, agent_id: AgentId) -> bool:
        """Take note that a connection is of *agent_id*, by the address it came from; say whether it may have one more."""
        connection = self._by_address.get(client)
        if connection is None or connection.agent_id == agent_id:
            return True
        own = self._of.setdefault(agent_id, set())
        if len(own) >= share(OF_ONE):
            return False
        self._take_out(connection)
        connection.agent_id = agent_id
        own.add(connection)
        return True

    def _take_out(self, connection: "Connection") -> None:
        if connection.agent_id is not None:
            self._of[connection.agent_id].discard(connection)
        timer = self._unknown.pop(connection, None)
        if timer is not None:
            timer.cancel()


class Connection(HttpToolsProtocol):
    """One connection; what is no body may not be long."""

    def __init__(self, *args: Any, connections: Connections, **more: Any) -> None:
        super().__init__(*args, **more)
        self.logger = LOG
        self.agent_id: AgentId | None = None
        self._connections = connections
        self._beside = 0
        """How many more bytes have come than a body is a reason for."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take note of it."""
        super().connection_made(transport)
        self._connections.entered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._connections.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came, unless it is too much that is no body."""
        self._beside += len(data)
        super().data_received(data)
        if self._beside > LONGEST_HEAD:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body."""
        self._beside -= (1 + PER_BYTE) * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count anew."""
        self._beside = 0
        super().on_message_complete()
