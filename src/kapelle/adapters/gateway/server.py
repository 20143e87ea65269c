"""The gateway: one small HTTP server on loopback, between agents and models."""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kapelle.adapters.gateway.prices import PRICES
from kapelle.core.budget import Price
from kapelle.core.errors import GatewayFailed
from kapelle.core.evaluating import Evaluator
from kapelle.core.gateway import Credentials, Meter, Ticket
from kapelle.core.hiding import Secret
from kapelle.core.ids import AgentId, AttemptId

if TYPE_CHECKING:
    from kapelle.adapters.gateway.answering import Answering

HIGHEST_PORT = 65535
AGAIN_S = 1.0
"""Seconds until what answers is loaded again that could not be."""
SOON_S = 0.2
"""Seconds after an agent was admitted until what answers it is loaded. Its program is starting meanwhile, and takes longer to
come to its first call."""


class ModelGateway:
    """See ``core.gateway.Gateway``."""

    def __init__(
        self,
        *,
        port_file: Path,
        credentials: Credentials,
        now: Callable[[], datetime],
        evaluator: Evaluator,
        new_id: Callable[[], str],
        prices: Mapping[str, Price] = PRICES,
        port: int | None = None,
        known: Callable[[AttemptId], Sequence[Secret]] = lambda _: (),
    ) -> None:
        self._known = known
        self._port_file = port_file
        self._credentials = credentials
        self._now = now
        self._evaluator = evaluator
        self._new_id = new_id
        self._prices = prices
        self._port = port
        self._tickets: dict[str, Ticket] = {}
        self._answering: Answering | None = None
        self._stopping = asyncio.Event()
        self._serving: asyncio.Future[None] | None = None
        self._wanted = asyncio.Event()
        """Somebody calls, or will soon; or nobody will any more."""

    async def start(self, meter: Meter) -> str:
        listener = self._listen()
        self._stopping, self._wanted = asyncio.Event(), asyncio.Event()
        if self._tickets:
            self._wanted.set()
        # It lives as long as the gateway, not as long as a scope: it is awaited in stop().
        self._serving = asyncio.ensure_future(self._serve(listener, meter))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def _serve(self, listener: socket.socket, meter: Meter) -> None:
        def load() -> "Answering":
            from kapelle.adapters.gateway.answering import Answering

            return Answering(
                self._tickets,
                meter,
                credentials=self._credentials,
                now=self._now,
                evaluator=self._evaluator,
                new_id=self._new_id,
                prices=self._prices,
                known=self._known,
            )

        # Who connects meanwhile waits in the listener's queue.
        try:
            await self._until_wanted(listener)
        finally:
            if not self._wanted.is_set() or self._stopping.is_set():
                listener.close()
        if self._stopping.is_set():
            return
        # One that breaks is made again, in the same place.
        listeners = [listener]
        answering = await self._loaded(load)
        if answering is None:
            listener.close()
            return
        self._answering = answering
        for ticket in list(self._tickets.values()):
            answering.expect(ticket)
        await answering.load_streaming()
        await answering.serve(lambda: listeners.pop() if listeners else self._listen(), self._stopping)

    async def _loaded(self, load: "Callable[[], Answering]") -> "Answering | None":
        """Load what answers, again and again where no file can be opened: agents are there already, and wait for it.

        None when the gateway is stopped before that.
        """
        while not self._stopping.is_set():
            try:
                return await asyncio.to_thread(load)
            except OSError:
                # Too many files are open just now; who calls waits.
                await asyncio.sleep(AGAIN_S)
        return None

    async def _until_wanted(self, listener: socket.socket) -> None:
        """Wait for the first caller: what answers takes so long to load that the agents would be started later for it."""
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, self._wanted.set)
        try:
            await self._wanted.wait()
        finally:
            loop.remove_reader(listener)

    def admit(self, ticket: Ticket) -> None:
        self._tickets[ticket.token] = ticket
        if self._answering is not None:
            self._answering.expect(ticket)
        elif self._serving is not None:
            asyncio.get_running_loop().call_later(SOON_S, self._wanted.set)

    def dismiss(self, agent_id: AgentId) -> None:
        for token in [token for token, ticket in self._tickets.items() if ticket.agent_id == agent_id]:
            del self._tickets[token]

    async def stop(self) -> None:
        self._stopping.set()
        self._wanted.set()
        if self._serving is not None:
            await self._serving
        self._serving = self._answering = None

    def _listen(self) -> socket.socket:
        """Listen where an earlier leader did, so that agents who outlived it find the gateway again."""
        wanted = self._port or remembered(self._port_file)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wanted or 0))
        except OSError as error_:
            if self._port is not None:
                listener.close()
                raise GatewayFailed(f"port {self._port} cannot be listened on: {error_.strerror}") from error_
            # Somebody else took the port meanwhile. Agents who outlived the leader end by themselves; new ones go on.
            listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        listener.setblocking(False)
        port = listener.getsockname()[1]
        if port != remembered(self._port_file):
            # Written only when it is another: on a full disk the one that is known would be lost.
            try:
                self._port_file.parent.mkdir(parents=True, exist_ok=True)
                self._port_file.write_text(str(port))
            except OSError as error_:
                listener.close()
                raise GatewayFailed(f"{self._port_file} cannot be written: {error_.strerror}") from error_
        return listener


def remembered(port_file: Path) -> int | None:
    """Return the port that the last gateway listened on, as *port_file* tells."""
    try:
        port = int(port_file.read_text())
    except (OSError, ValueError):
        return None
    return port if 0 < port <= HIGHEST_PORT else None
