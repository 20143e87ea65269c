"""The gateway: one small HTTP server on loopback, between agents and models."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from kapelle.adapters.gateway.prices import PRICES, cost_of
from kapelle.adapters.gateway.recognising import NO_RETRY, Recognised, answer_to, recognise
from kapelle.adapters.gateway.rehearsal import Caller
from kapelle.adapters.gateway.rehearse import RehearsedUpstream, error, log_no_broken_replies
from kapelle.core.budget import Price, Usage, price_of
from kapelle.core.conversation import Trouble
from kapelle.core.errors import GatewayFailed, KapelleError
from kapelle.core.evaluating import Evaluator
from kapelle.core.ids import AgentId
from kapelle.core.ports import Credentials, Meter, ModelCall, Refusal, Ticket

if TYPE_CHECKING:
    from kapelle.adapters.gateway.forwarding import Forwarder

_LOG = logging.getLogger("kapelle")
METHODS = ["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]
LARGEST = 64 << 20
"""Bytes of a request, at most; the API itself takes half of that."""
TOKEN_HEADER = "x-kapelle-token"  # noqa: S105  # the name of a header
HIGHEST_PORT = 65535
FIRST_ERROR = 400
"""The lowest status of an error."""
DATE_S = 1.0
"""Seconds after which the date that replies carry is renewed."""
PATIENCE_S = 1.0
"""Seconds that a reply has to come to its end when the gateway stops."""


class ModelGateway:
    """See ``core.ports.Gateway``."""

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
    ) -> None:
        self._port_file = port_file
        self._credentials = credentials
        self._now = now
        self._evaluator = evaluator
        self._new_id = new_id
        self._prices = prices
        self._port = port
        self._tickets: dict[str, Ticket] = {}
        self._rehearsals: dict[str, RehearsedUpstream] = {}
        self._meter: Meter | None = None
        self._forwarder: asyncio.Future[Forwarder] | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Future[None] | None = None

    # --- The port ---

    async def start(self, meter: Meter) -> str:
        self._meter = meter
        listener = self._listen()
        app = Starlette(routes=[Route("/{path:path}", self._handle, methods=METHODS)])
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        log_no_broken_replies()
        self._server = _Server(config)
        # The server lives as long as the gateway, not as long as a scope: it is awaited in stop().
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[listener]))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    def admit(self, ticket: Ticket) -> None:
        self._tickets[ticket.token] = ticket
        if ticket.upstream.rehearsal is None:
            # While its program starts, which takes longer.
            self._load_forwarder()

    def dismiss(self, agent_id: AgentId) -> None:
        for token in [token for token, ticket in self._tickets.items() if ticket.agent_id == agent_id]:
            del self._tickets[token]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        if self._serving is not None:
            await self._serving
        if self._forwarder is not None:
            await (await self._forwarder).close()
        self._server, self._serving, self._forwarder = None, None, None

    def _listen(self) -> socket.socket:
        """Listen where an earlier leader did, so that agents who outlived it find the gateway again."""
        wanted = self._port or self._remembered()
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
        self._port_file.parent.mkdir(parents=True, exist_ok=True)
        self._port_file.write_text(str(listener.getsockname()[1]))
        return listener

    def _remembered(self) -> int | None:
        try:
            port = int(self._port_file.read_text())
        except (OSError, ValueError):
            return None
        return port if 0 < port <= HIGHEST_PORT else None

    # --- Requests ---

    async def _handle(self, request: Request) -> Response:
        ticket = self._ticket(request)
        if ticket is None:
            if request.method == "HEAD":
                return Response(status_code=200)
            return error(401, "this token is not known to the Kapelle gateway (its agent was stopped)")
        if self._meter is not None and request.url.path.endswith("/messages"):
            refusal = self._meter.admit(ticket.agent_id)
            if refusal is not None:
                return _refused(refusal)
        try:
            body = await _body_of(request)
        except ClientDisconnect:
            return Response(status_code=499)
        if body is None:
            return error(413, f"a request of more than {LARGEST} bytes", headers=NO_RETRY)
        if ticket.upstream.rehearsal is not None:
            return await self._rehearse(request, body, ticket)
        if self._server is None or self._server.should_exit:
            return error(503, "the gateway is stopping")
        return await (await self._load_forwarder()).forward(request, body, ticket)

    def _load_forwarder(self) -> "asyncio.Future[Forwarder]":
        def load() -> "Forwarder":
            from kapelle.adapters.gateway.forwarding import Forwarder

            return Forwarder(self._credentials, book=self._book, failed=self._failed)

        if self._forwarder is None:
            self._forwarder = asyncio.ensure_future(asyncio.to_thread(load))
        return self._forwarder

    def _ticket(self, request: Request) -> Ticket | None:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        for token in (request.headers.get("x-api-key"), request.headers.get(TOKEN_HEADER), bearer):
            if token and token in self._tickets:
                return self._tickets[token]
        return None

    async def _rehearse(self, request: Request, body: bytes, ticket: Ticket) -> Response:
        path = ticket.upstream.rehearsal or ""
        try:
            if path not in self._rehearsals:
                log = Path(ticket.upstream.log or f"{path}.log")
                self._rehearsals[path] = RehearsedUpstream.open(Path(path), log, self._now, self._evaluator)
        except KapelleError as problem:
            return error(500, str(problem))
        begun = time.monotonic()
        failed = False

        def booked(status: int, model: str, usage: Usage, kind: str) -> None:
            nonlocal failed
            failed = status >= FIRST_ERROR
            if not failed:
                trouble = {"refusal": Trouble.REFUSED, "cut": None, "": None}.get(kind, Trouble.UNREACHABLE)
                what = None if trouble is None else Recognised(trouble=trouble, kind=kind)
                self._book(ticket, model=model, usage=usage, status=status, begun=begun, kind=kind, what=what)

        caller = Caller(run=ticket.run_id, task=ticket.task, attempt=ticket.attempt, round=ticket.round, cwd=ticket.cwd)
        response = await self._rehearsals[path].respond(request, body, caller, booked)
        return self._failed(ticket, response, begun) if failed else response

    def _failed(self, ticket: Ticket, response: Response, begun: float) -> Response:
        """Book an answer with an error, and return what the agent is told: what shuts its account is not asked again."""
        status = response.status_code
        what = recognise(status, response.headers, bytes(response.body), self._now(), own_login=ticket.upstream.own_login)
        self._book(ticket, model="", usage=Usage(), status=status, begun=begun, kind=what.kind, what=what)
        return _refused(Refusal(trouble=what.trouble, message=what.message)) if what.of_account else response

    def _book(
        self,
        ticket: Ticket,
        *,
        model: str,
        usage: Usage,
        status: int,
        begun: float,
        kind: str,
        hour_writes: int = 0,
        what: Recognised | None = None,
    ) -> None:
        if self._meter is None:
            return
        price = price_of(model, self._prices)
        self._meter.record(
            ModelCall(
                call_id=self._new_id(),
                agent_id=ticket.agent_id,
                run_id=ticket.run_id,
                task_id=ticket.task_id,
                attempt_id=ticket.attempt_id,
                model=model,
                usage=usage,
                cost_usd=cost_of(usage, price, hour_writes=hour_writes) if price is not None else 0.0,
                status=status,
                seconds=time.monotonic() - begun,
                error=kind,
                trouble=None if what is None else what.trouble,
                message="" if what is None else what.message,
                resets_at=None if what is None else what.resets_at,
                of_account=what is not None and what.of_account,
                priced=price is not None,
            )
        )


async def _body_of(request: Request) -> bytes | None:
    """Return the body of *request*, or None when it is too large."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST:
            return None
        parts.append(part)
    return b"".join(parts)


def _refused(refusal: Refusal) -> Response:
    """Return how the gateway itself refuses a call, so that the agent's program does not ask again and again."""
    status, kind, message = answer_to(refusal)
    return error(status, message, kind, headers=NO_RETRY)


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs the process, and ends as soon as it is told to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def stop(self) -> None:
        """Have it end."""
        self.should_exit = True
        self._told.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them."""
        yield

    async def main_loop(self) -> None:
        """Wait to be told; meanwhile the date in the headers is renewed."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), DATE_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End connections that wait for a request at once; give the others a while to end theirs."""
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        state, loop = self.server_state, asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        # The server tells nobody when the last of them is gone.
        while (state.connections or state.tasks) and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        unfinished = list(state.tasks)
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished, timeout=PATIENCE_S)
