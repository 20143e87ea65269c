"""The gateway: one small HTTP server on loopback, between agents and models."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kapelle.adapters.gateway.asking import read_request
from kapelle.adapters.gateway.prices import PRICES, cost_of
from kapelle.adapters.gateway.reading import ReplyReader
from kapelle.adapters.gateway.recognising import NO_RETRY, Recognised, answer_to, recognise
from kapelle.adapters.gateway.recording import Recorder
from kapelle.adapters.gateway.rehearsal import Caller
from kapelle.adapters.gateway.rehearse import RehearsedUpstream, error, log_no_broken_replies
from kapelle.core.budget import Price, Usage, price_of
from kapelle.core.conversation import Trouble
from kapelle.core.errors import GatewayFailed, KapelleError
from kapelle.core.evaluating import Evaluator
from kapelle.core.ids import AgentId
from kapelle.core.ports import Credentials, Meter, ModelCall, Refusal, Ticket
from kapelle.core.trouble import CREDENTIALS_WORD, trouble_of_text

_LOG = logging.getLogger("kapelle")
METHODS = ["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]
# What belongs to one connection and not to the message, and what the gateway sets itself.
NOT_FORWARDED = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "accept-encoding",
        "content-encoding",
    }
)
LARGEST = 64 << 20
"""Bytes of a request, at most; the API itself takes half of that."""
TOKEN_HEADER = "x-kapelle-token"  # noqa: S105  # the name of a header
HIGHEST_PORT = 65535
FIRST_ERROR = 400
"""The lowest status of an error."""


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
        self._recorders: dict[str, Recorder] = {}
        self._meter: Meter | None = None
        self._client: httpx2.AsyncClient | None = None
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Future[None] | None = None

    # --- The port ---

    async def start(self, meter: Meter) -> str:
        self._meter = meter
        listener = self._listen()
        self._client = httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            timeout=httpx2.Timeout(None, connect=10.0),
            follow_redirects=False,
        )
        app = Starlette(routes=[Route("/{path:path}", self._handle, methods=METHODS)])
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        log_no_broken_replies()
        self._server = _QuietServer(config)
        # The server lives as long as the gateway, not as long as a scope: it is awaited in stop().
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[listener]))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    def admit(self, ticket: Ticket) -> None:
        self._tickets[ticket.token] = ticket

    def dismiss(self, agent_id: AgentId) -> None:
        for token in [token for token, ticket in self._tickets.items() if ticket.agent_id == agent_id]:
            del self._tickets[token]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        if self._client is not None:
            await self._client.aclose()
        self._server, self._serving, self._client = None, None, None

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
        return await self._forward(request, body, ticket)

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

    async def _forward(self, request: Request, body: bytes, ticket: Ticket) -> Response:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name not in NOT_FORWARDED and not name.startswith("x-kapelle-")
        }
        headers["accept-encoding"] = "identity"
        if ticket.upstream.credential is not None:
            key = self._credentials.resolve(ticket.upstream.credential)
            if key is None:
                words = f"{CREDENTIALS_WORD} {ticket.upstream.credential} is not set where Kapelle leads"
                return error(401, words, headers=NO_RETRY)
            headers.pop("authorization", None)
            headers["x-api-key"] = key
        if self._client is None:
            return error(503, "the gateway is stopping")
        # With its escapes as they came: a slash in a name is not one between names.
        url = f"{ticket.upstream.base_url.rstrip('/')}{request.scope['raw_path'].decode('latin-1')}"
        url += f"?{request.url.query}" if request.url.query else ""
        begun = time.monotonic()
        try:
            sending = self._client.build_request(request.method, url, headers=headers, content=body)
            response = await self._client.send(sending, stream=True)
        except httpx2.HTTPError as problem:
            if request.url.path.endswith("/messages"):
                what = Recognised(trouble=Trouble.UNREACHABLE, kind="unreachable", message=str(problem))
                self._book(ticket, model="", usage=Usage(), status=502, begun=begun, kind=what.kind, what=what)
            return error(502, f"the model API at {ticket.upstream.base_url} cannot be reached: {problem}")
        passed = {name: value for name, value in response.headers.items() if name not in NOT_FORWARDED}
        metered = request.url.path.endswith("/messages")
        # A rehearsal answers what is on the side by itself: a turn for it would shift all that follow.
        recorded = ticket.upstream.record is not None and not read_request(body).on_the_side
        if metered and response.status_code >= FIRST_ERROR:
            return await self._passed_error(response, passed, ticket, begun, recorded=recorded)
        pieces = self._pass_on(response, ticket, begun, recorded=recorded) if metered else response.aiter_raw()
        return StreamingResponse(pieces, status_code=response.status_code, headers=passed)

    async def _passed_error(
        self, response: httpx2.Response, headers: Mapping[str, str], ticket: Ticket, begun: float, *, recorded: bool
    ) -> Response:
        """Return an error of the API, which is small and comes at once, whole."""
        try:
            content = await response.aread()
        except httpx2.HTTPError:
            content = b""
        finally:
            await response.aclose()
        if recorded:
            self._record(ticket, response.status_code, None)
        return self._failed(ticket, Response(content, status_code=response.status_code, headers=headers), begun)

    async def _pass_on(
        self, response: httpx2.Response, ticket: Ticket, begun: float, *, recorded: bool
    ) -> AsyncIterator[bytes]:
        """Yield the reply as it comes, and count it."""
        reader = ReplyReader(streaming=response.headers.get("content-type", "").startswith("text/event-stream"))
        broken = ""
        try:
            async for piece in response.aiter_raw():
                reader.feed(piece)
                yield piece
        except httpx2.HTTPError:
            broken = "cut"
            raise
        finally:
            # Booked before anything is awaited: whoever gives up the call may not let this come to its end.
            reader.finish()
            kind = reader.error or broken or ("refusal" if reader.refused else "" if reader.complete else "cut")
            status = response.status_code
            what = _in_reply(reader, broken=broken)
            self._book(
                ticket,
                model=reader.model,
                usage=reader.usage,
                status=status,
                begun=begun,
                kind=kind,
                hour_writes=reader.hour_writes,
                what=what,
            )
            if recorded:
                self._record(ticket, status, reader)
            with suppress(httpx2.HTTPError):
                await response.aclose()

    def _record(self, ticket: Ticket, status: int, reader: ReplyReader | None) -> None:
        path = ticket.upstream.record
        if path is None:
            return
        recorder = self._recorders.setdefault(path, Recorder(Path(path)))
        try:
            if reader is None:
                recorder.error(ticket, status)
            elif reader.complete:
                recorder.reply(ticket, reader)
        except OSError as problem:
            # The reply itself is not to suffer.
            _LOG.warning("the recording %s cannot be written: %s", path, problem.strerror)

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


def _in_reply(reader: ReplyReader, *, broken: str) -> Recognised | None:
    """Return what went wrong in a reply that began well, or None."""
    if reader.error:
        trouble = trouble_of_text(f"{reader.error} {reader.message}") or Trouble.API_ERROR
        return Recognised(trouble=trouble, kind=reader.error, message=reader.message)
    if broken:
        return Recognised(trouble=Trouble.UNREACHABLE, kind=broken)
    return Recognised(trouble=Trouble.REFUSED, kind="refusal") if reader.refused else None


class _QuietServer(uvicorn.Server):
    """A server that leaves signals to whoever runs the process."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them."""
        yield
