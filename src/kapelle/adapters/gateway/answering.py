"""Answering what agents ask: from a rehearsal, or by passing it on. Every call is admitted first and counted afterwards.

A module of its own, since the web server takes a while to load: the gateway listens at once, and this is loaded when the first
agents have been started.
"""

import asyncio
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from kapelle.adapters.gateway.connections import LOG, Connection, Connections
from kapelle.adapters.gateway.counting import UNCOUNTED, is_model_call, uncounted
from kapelle.adapters.gateway.prices import cost_of
from kapelle.adapters.gateway.recognising import NO_RETRY, Recognised, answer_to, recognise
from kapelle.adapters.gateway.rehearsal import Caller
from kapelle.adapters.gateway.rehearse import RehearsedUpstream, error, log_no_broken_replies
from kapelle.adapters.system.entrances import Entrance
from kapelle.core.budget import Price, Usage, price_of
from kapelle.core.calls import ModelCall, Refusal
from kapelle.core.conversation import Trouble
from kapelle.core.errors import KapelleError
from kapelle.core.evaluating import Evaluator
from kapelle.core.frozen import replace
from kapelle.core.gateway import Credentials, Meter, Ticket
from kapelle.core.hiding import Hiding, Secret
from kapelle.core.ids import AgentId, AttemptId
from kapelle.core.shapes import without_shapes

if TYPE_CHECKING:
    from kapelle.adapters.gateway.forwarding import Forwarder

METHODS = ["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]
LARGEST = 64 << 20
"""Bytes of a request, at most; the API itself takes half of that."""
MOST_AT_ONCE = 2 * LARGEST
"""Bytes of all requests of one agent that are open at once."""
TOKEN_HEADER = "x-kapelle-token"  # noqa: S105  # the name of a header
FIRST_ERROR = 400
"""The lowest status of an error."""
MODEL = re.compile(rb'"model"\s*:\s*"([^"]{1,200})"')
MODEL_WITHIN = 4096
"""Bytes at the beginning of a request in which its model is looked for."""
LETTERS = 4
"""Letters of a token, about."""
MANY = 1000
"""Agents after which those that are gone are forgotten."""
GUESSED_OUTPUT = 500
"""Tokens that a first reply has, about."""
DATE_S = 1.0
"""Seconds after which the date that replies carry is renewed."""
PATIENCE_S = 1.0
"""Seconds that a reply has to come to its end when the gateway stops."""


class Answering:
    """Answers the calls of those who hold one of *tickets*, by their tokens."""

    def __init__(
        self,
        tickets: Mapping[str, Ticket],
        meter: Meter,
        *,
        credentials: Credentials,
        now: Callable[[], datetime],
        evaluator: Evaluator,
        new_id: Callable[[], str],
        prices: Mapping[str, Price],
        known: Callable[[AttemptId], Sequence[Secret]],
    ) -> None:
        self._known = known
        self._tickets = tickets
        self._meter = meter
        self._credentials = credentials
        self._now = now
        self._evaluator = evaluator
        self._new_id = new_id
        self._prices = prices
        self._rehearsals: dict[str, RehearsedUpstream] = {}
        self._connections = Connections()
        self._last: dict[AgentId, Usage] = {}
        """What the last call of each agent has used."""
        self._held: Counter[AgentId] = Counter()
        """Bytes of requests that are being answered."""
        self._forwarder: asyncio.Future[Forwarder] | None = None

    async def load_streaming(self) -> None:
        """Load what the first reply would load otherwise, with its agent waiting for it: reply to nobody."""

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            del message

        await StreamingResponse(_nothing())({"type": "http"}, receive, send)

    async def serve(self, listen: Callable[[], socket.socket], stopping: asyncio.Event) -> None:
        """Answer whoever connects where *listen* listens, until *stopping*."""
        app = Starlette(routes=[Route("/{path:path}", self._handle, methods=METHODS)])
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
        log_no_broken_replies()
        try:
            await _Server(config, stopping, listen, self._connections).serve()
        finally:
            if self._forwarder is not None:
                await (await self._forwarder).close()

    async def _handle(self, request: Request) -> Response:
        ticket = self._ticket(request)
        if ticket is None:
            if request.method == "HEAD":
                return Response(status_code=200)
            return error(401, "this token is not known to the Kapelle gateway (its agent was stopped)")
        if not self._connections.belongs(request.client, ticket.agent_id):
            return self._crowded(ticket, "it has too many connections to its model open at once")
        with self._holding(ticket.agent_id) as held:
            try:
                body = await _body_of(request, held)
            except ClientDisconnect:
                return Response(status_code=499)
            except _TooMuch:
                return self._crowded(ticket, f"it has requests of more than {MOST_AT_ONCE >> 20} MB to its model open at once")
            if body is None:
                return error(413, f"a request of more than {LARGEST} bytes", headers=NO_RETRY)
            if uncounted(request.method, request.url.path):
                return error(400, UNCOUNTED, headers=NO_RETRY)
            if is_model_call(request.url.path):
                ticket = replace(ticket, call_id=self._new_id())
                refusal = await self._let_through(self._guessed(ticket, body))
                if refusal is not None:
                    return _refused(refusal)
            try:
                return await self._answer(request, body, ticket)
            except BaseException:
                if ticket.call_id:
                    self._came_to_nothing(ticket, 500, "cut")
                raise

    def _came_to_nothing(self, ticket: Ticket, status: int, kind: str) -> None:
        """Book a call that was let through and did not go out."""
        self._book(ticket, model="", usage=Usage(), status=status, begun=time.monotonic(), kind=kind)

    async def _let_through(self, call: ModelCall) -> Refusal | None:
        """Wait until *call* may go out, and return None; or why it may not."""
        while (said := self._meter.admit(call)) is not None:
            if isinstance(said, Refusal):
                return said
            await self._meter.room()
        await self._meter.kept(call.call_id)
        return None

    def _still(self, ticket: Ticket) -> Response | None:
        """Ask once more, right before a call goes out: return None, or what its agent is told instead."""
        refusal = self._meter.still(ticket.call_id) if ticket.call_id else None
        return None if refusal is None else _refused(refusal)

    def _guessed(self, ticket: Ticket, body: bytes) -> ModelCall:
        """Return the call of *body* with what it will probably use: as much as the agent's last one, or by its length."""
        named = MODEL.search(body, 0, MODEL_WITHIN)
        model = named[1].decode(errors="replace") if named is not None else ""
        usage = self._last.get(ticket.agent_id) or Usage(input_tokens=len(body) // LETTERS, output_tokens=GUESSED_OUTPUT)
        return self._call(ticket, model=model, usage=usage, cost_usd=self._cost(model, usage))

    def _cost(self, model: str, usage: Usage, hour_writes: int = 0) -> float:
        price = price_of(model, self._prices)
        return cost_of(usage, price, hour_writes=hour_writes) if price is not None else 0.0

    def _call(self, ticket: Ticket, *, model: str, usage: Usage, cost_usd: float) -> ModelCall:
        return ModelCall(
            call_id=ticket.call_id or self._new_id(),
            agent_id=ticket.agent_id,
            run_id=ticket.run_id,
            task_id=ticket.task_id,
            attempt_id=ticket.attempt_id,
            model=model,
            usage=usage,
            cost_usd=cost_usd,
            status=0,
            seconds=0.0,
        )

    async def _answer(self, request: Request, body: bytes, ticket: Ticket) -> Response:
        if ticket.upstream.rehearsal is not None:
            return await self._rehearse(request, body, ticket)
        # Shielded: a call that is given up while it loads must not take it from the others.
        forwarder = await asyncio.shield(self._load_forwarder())
        return await forwarder.forward(request, body, ticket)

    @contextmanager
    def _holding(self, agent_id: AgentId) -> Generator[Callable[[int], None]]:
        """Count what of the requests of *agent_id* is in memory."""
        size = 0

        def held(count: int) -> None:
            nonlocal size
            size += count
            self._held[agent_id] += count
            if self._held[agent_id] > MOST_AT_ONCE:
                raise _TooMuch

        try:
            yield held
        finally:
            self._held[agent_id] -= size
            if not self._held[agent_id]:
                del self._held[agent_id]

    def _crowded(self, ticket: Ticket, reason: str) -> Response:
        """Refuse what is too much for one agent; its program may ask again."""
        self._meter.crowded(ticket.agent_id, reason)
        return error(503, f"kapelle limit: {reason}", "overloaded_error", headers={"connection": "close"})

    def expect(self, ticket: Ticket) -> None:
        """Get ready for calls of *ticket*."""
        if ticket.upstream.rehearsal is None:
            # While its program starts, which takes longer.
            self._load_forwarder()

    def _load_forwarder(self) -> "asyncio.Future[Forwarder]":
        def load() -> "Forwarder":
            from kapelle.adapters.gateway.forwarding import Forwarder

            known, heard = self._known, self._meter.heard
            book, failed, still = self._book, self._failed, self._still
            return Forwarder(self._credentials, book=book, failed=failed, known=known, heard=heard, still=still)

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
            if ticket.call_id:
                self._came_to_nothing(ticket, 500, "api_error")
            return error(500, str(problem))
        if (refused := self._still(ticket)) is not None:
            return refused
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
        heard = partial(self._meter.heard, ticket.call_id)
        response = await self._rehearsals[path].respond(request, body, caller, booked, heard)
        return self._failed(ticket, response, begun) if failed else response

    def _clean(self, ticket: Ticket, text: str) -> str:
        """Return what is kept of *text*, which may repeat what was asked."""
        return without_shapes(Hiding(self._known(ticket.attempt_id)).hide_text(text))

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
        if usage.total:
            self._last[ticket.agent_id] = usage
            if len(self._last) > MANY:
                known = {each.agent_id for each in self._tickets.values()}
                self._last = {agent_id: used for agent_id, used in self._last.items() if agent_id in known}
        call = self._call(ticket, model=model, usage=usage, cost_usd=self._cost(model, usage, hour_writes))
        self._meter.record(
            replace(
                call,
                status=status,
                seconds=time.monotonic() - begun,
                error=kind,
                trouble=None if what is None else what.trouble,
                message="" if what is None or not what.message else self._clean(ticket, what.message),
                resets_at=None if what is None else what.resets_at,
                of_account=what is not None and what.of_account,
                priced=price_of(model, self._prices) is not None,
            )
        )


class _TooMuch(Exception):
    """All requests of an agent together are too large."""


async def _body_of(request: Request, held: Callable[[int], None]) -> bytes | None:
    """Return the body of *request*, or None when it is too large; *held* is told of each part.

    Raises:
        _TooMuch: *held* says so.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST:
            return None
        held(len(part))
        parts.append(part)
    return b"".join(parts)


def _refused(refusal: Refusal) -> Response:
    """Return how the gateway itself refuses a call, so that the agent's program does not ask again and again."""
    status, kind, message = answer_to(refusal)
    return error(status, message, kind, headers=NO_RETRY)


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs the process, and ends as soon as it is told to."""

    def __init__(
        self,
        config: uvicorn.Config,
        stopping: asyncio.Event,
        listen: Callable[[], socket.socket],
        connections: Connections,
    ) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._listen = listen
        self._connections = connections
        self._entrance: Entrance | None = None
        self._entering: set[asyncio.Future[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # it listens by itself
        """Let whoever comes in."""
        await self.lifespan.startup()
        self._entrance = Entrance(self._listen, self._enter, lambda reason: LOG.warning("the gateway: %s", reason))
        self.started = True

    def _enter(self, connection: socket.socket) -> bool:
        def made() -> Connection:
            return Connection(self.config, self.server_state, self.lifespan.state, connections=self._connections)

        loop = asyncio.get_running_loop()
        entering = asyncio.ensure_future(loop.connect_accepted_socket(made, connection))
        self._entering.add(entering)
        entering.add_done_callback(self._entering.discard)
        return True

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them."""
        yield

    async def main_loop(self) -> None:
        """Wait to be told; meanwhile the date in the headers is renewed."""
        while not self._stopping.is_set():
            await self.on_tick(0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), DATE_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # it has its own
        """End connections that wait for a request at once; give the others a while to end theirs."""
        if self._entrance is not None:
            self._entrance.close()
        if self._entering:
            await asyncio.wait(self._entering)
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


async def _nothing() -> AsyncGenerator[bytes]:
    for piece in ():
        yield piece
