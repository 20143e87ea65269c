"""Passing calls on to a model API, and its replies to the agent, as they come: counted, and recorded where that is asked for.

A module of its own, since it is loaded only when there is something to pass on: its HTTP client takes a while to load and to
set up, and a rehearsal needs none.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import httpx2
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from kapelle.adapters.gateway.asking import read_request
from kapelle.adapters.gateway.reading import ReplyReader
from kapelle.adapters.gateway.recognising import NO_RETRY, Recognised
from kapelle.adapters.gateway.recording import Recorder
from kapelle.adapters.gateway.rehearse import error
from kapelle.core.budget import Usage
from kapelle.core.conversation import Trouble
from kapelle.core.gateway import Credentials, Ticket
from kapelle.core.hiding import Hiding, Secret
from kapelle.core.ids import AttemptId
from kapelle.core.shapes import without_shapes
from kapelle.core.trouble import CREDENTIALS_WORD, trouble_of_text

_LOG = logging.getLogger("kapelle")
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
FIRST_ERROR = 400
"""The lowest status of an error."""


class Book(Protocol):
    """Counts a call."""

    def __call__(
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
        """Count it; *begun* is the moment of ``time.monotonic`` at which it was passed on."""
        ...


class Forwarder:
    """Passes calls on. *failed* counts an answer with an error and returns what the agent is told; *heard* hears it come.

    *still* is asked right before a call goes out, and returns what its agent is told when it may not after all.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        book: Book,
        failed: Callable[[Ticket, Response, float], Response],
        known: Callable[[AttemptId], Sequence[Secret]],
        heard: Callable[[str], None],
        still: Callable[[Ticket], Response | None],
    ) -> None:
        self._heard = heard
        self._still = still
        self._credentials = credentials
        self._known = known
        self._book = book
        self._failed = failed
        self._recorders: dict[str, Recorder] = {}
        self._client = httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            timeout=httpx2.Timeout(None, connect=10.0),
            follow_redirects=False,
        )

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()

    async def forward(self, request: Request, body: bytes, ticket: Ticket) -> Response:
        """Return what the model API of *ticket* answers to *request*, as it comes; or why there is no answer."""
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
                if ticket.call_id:
                    kind = "authentication_error"
                    self._book(ticket, model="", usage=Usage(), status=401, begun=time.monotonic(), kind=kind)
                return error(401, words, headers=NO_RETRY)
            headers.pop("authorization", None)
            headers["x-api-key"] = key
        # With its escapes as they came: a slash in a name is not one between names.
        url = f"{ticket.upstream.base_url.rstrip('/')}{request.scope['raw_path'].decode('latin-1')}"
        url += f"?{request.url.query}" if request.url.query else ""
        if (refused := self._still(ticket)) is not None:
            return refused
        begun = time.monotonic()
        try:
            sending = self._client.build_request(request.method, url, headers=headers, content=body)
            response = await self._client.send(sending, stream=True)
        except httpx2.HTTPError as problem:
            if ticket.call_id:
                what = Recognised(trouble=Trouble.UNREACHABLE, kind="unreachable", message=str(problem))
                self._book(ticket, model="", usage=Usage(), status=502, begun=begun, kind=what.kind, what=what)
            return error(502, f"the model API at {ticket.upstream.base_url} cannot be reached: {problem}")
        passed = {name: value for name, value in response.headers.items() if name not in NOT_FORWARDED}
        metered = bool(ticket.call_id)
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
                self._heard(ticket.call_id)
                yield piece
        except httpx2.HTTPError as problem:
            broken = "cut"
            # As the connection to the agent is then ended, too.
            raise ConnectionResetError("the model API broke its reply off") from problem
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
                hiding = Hiding(self._known(ticket.attempt_id))
                recorder.reply(ticket, reader, lambda text: without_shapes(hiding.hide_text(text)))
        except OSError as problem:
            # The reply itself is not to suffer.
            _LOG.warning("the recording %s cannot be written: %s", path, problem.strerror)


def _in_reply(reader: ReplyReader, *, broken: str) -> Recognised | None:
    """Return what went wrong in a reply that began well, or None."""
    if reader.error:
        trouble = trouble_of_text(f"{reader.error} {reader.message}") or Trouble.API_ERROR
        return Recognised(trouble=trouble, kind=reader.error, message=reader.message)
    if broken:
        return Recognised(trouble=Trouble.UNREACHABLE, kind=broken)
    return Recognised(trouble=Trouble.REFUSED, kind="refusal") if reader.refused else None
