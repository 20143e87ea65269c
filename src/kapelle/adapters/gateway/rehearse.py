"""Answering requests from a rehearsal, over HTTP."""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from kapelle.adapters.gateway import replies
from kapelle.adapters.gateway.asking import read_request
from kapelle.adapters.gateway.rehearsal import Answer, Caller, Fault, Rehearsing, fault_message
from kapelle.adapters.gateway.rehearsal_file import Rehearsal, Turn, load_rehearsal
from kapelle.adapters.gateway.request_log import RequestLog
from kapelle.core.budget import Usage
from kapelle.core.errors import KapelleError
from kapelle.core.evaluating import Evaluator
from kapelle.core.frozen import replace

Booked = Callable[[int, str, Usage, str], None]
"""Called once per request with status, model, usage and error."""


class RehearsedUpstream:
    """A rehearsal in the place of the model's API."""

    def __init__(self, rehearsal: Rehearsal, log: RequestLog, now: Callable[[], datetime], evaluator: Evaluator) -> None:
        self._rehearsing = Rehearsing(rehearsal=rehearsal, evaluator=evaluator)
        self._log = log
        self._now = now
        self._choosing = asyncio.Lock()

    @classmethod
    def open(cls, path: Path, log: Path, now: Callable[[], datetime], evaluator: Evaluator) -> "RehearsedUpstream":
        """Read the rehearsal at *path*, which goes on where *log* says.

        Raises:
            FileMissing: one of them cannot be read.
            FileInvalid: the rehearsal has mistakes.
        """
        return cls(load_rehearsal(path), RequestLog(log), now, evaluator)

    async def respond(
        self, request: Request, body: bytes, caller: Caller, booked: Booked, heard: Callable[[], None] = lambda: None
    ) -> Response:
        """Answer a request of the Messages API; *heard* is told of each piece of the answer."""
        path = request.url.path
        if path.endswith("/count_tokens"):
            return Response(json.dumps({"input_tokens": len(body) // 4}), media_type="application/json")
        if not path.endswith("/messages"):
            return error(404, f"a rehearsal has no {path}")
        asked = read_request(body)
        caller = caller if caller.cwd else replace(caller, cwd=asked.cwd)
        message_id = f"msg_{secrets.token_hex(12)}"
        try:
            # One after the other: a fault is consumed before anybody else is told that it comes up.
            async with self._choosing:
                # In a thread: a script's patterns and templates may take their time, and others want answers meanwhile.
                found = await asyncio.to_thread(self._rehearsing.answer, asked, caller, self._log.counts, message_id)
                if isinstance(found, Fault):
                    self._log.consume(found.key)
        except KapelleError as problem:
            booked(400, asked.model, Usage(), replies.ERROR_TYPES[400])
            return error(400, f"(rehearsal: {problem})", headers={"x-should-retry": "false"})
        if isinstance(found, Fault):
            return await self._fault(found, asked.model, booked)
        return await self._reply(found, streaming=asked.streaming, booked=booked, heard=heard)

    async def _fault(self, fault: Fault, model: str, booked: Booked) -> Response:
        turn = fault.turn
        if turn.error is not None:
            booked(turn.error, model, Usage(), turn.error_type or replies.ERROR_TYPES.get(turn.error, "api_error"))
            return _error(turn, turn.error, self._now())
        if turn.stall is not None:
            # It is on its way until it is given up.
            stalled = partial(booked, 200, model, Usage(), "stalled")
            return StreamingResponse(_stall(turn.stall.total_seconds(), stalled), media_type="text/event-stream")
        booked(200, model, Usage(), "cut")
        return StreamingResponse(_cut(model), media_type="text/event-stream")

    async def _reply(self, found: Answer, *, streaming: bool, booked: Booked, heard: Callable[[], None]) -> Response:
        reply, turn = found.reply, found.turn
        if turn.delay is not None:
            await asyncio.sleep(turn.delay.total_seconds())
        kind_of_end = "refusal" if reply.refused else ""
        if not streaming:
            booked(200, reply.model, reply.usage, kind_of_end)
            return Response(replies.whole(reply), media_type="application/json")
        drip = turn.drip.total_seconds() if turn.drip is not None else 0.0

        async def pieces() -> AsyncIterator[bytes]:
            kind = "cut"
            try:
                for piece in replies.streamed(reply):
                    heard()
                    yield piece
                    if drip:
                        await asyncio.sleep(drip)
                kind = kind_of_end
            finally:
                booked(200, reply.model, reply.usage, kind)

        return StreamingResponse(pieces(), media_type="text/event-stream")


class _BrokenReplies(logging.Filter):
    """Keeps replies that break off, in a rehearsal or at the upstream, out of the web server's log: they are booked."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether *record* is to be logged."""
        problem = record.exc_info[1] if record.exc_info else None
        return not isinstance(problem, ConnectionResetError)


_QUIET = _BrokenReplies()


def log_no_broken_replies() -> None:
    """See to it that a reply that breaks off does not print a traceback over whatever is on the screen."""
    for name in ("uvicorn.error", "kapelle.gateway"):
        logging.getLogger(name).addFilter(_QUIET)


def _error(turn: Turn, status: int, now: datetime) -> Response:
    headers = {} if turn.retry_after is None else {"retry-after": f"{turn.retry_after:g}"}
    resets_at = turn.resets_at(now)
    if resets_at is not None:
        # Rounded up: a limit that is said to end a moment ago would be none.
        reset = str(-int(-resets_at.timestamp() // 1))
        headers |= {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": reset}
    body = replies.error_body(status, fault_message(turn, now), turn.error_type)
    if turn.body is not None:
        body = turn.body.encode() if isinstance(turn.body, str) else json.dumps(turn.body).encode()
    return Response(body, status_code=status, headers=headers | turn.headers, media_type="application/json")


async def _stall(seconds: float, booked: Callable[[], None]) -> AsyncIterator[bytes]:
    try:
        yield b": nothing comes\n\n"
        await asyncio.sleep(seconds)
    finally:
        booked()
    raise ConnectionResetError("the rehearsed reply stalled")


async def _cut(model: str) -> AsyncIterator[bytes]:
    reply = replies.Reply(message_id="msg_cut", model=model, text="This will not be", tools=(), usage=Usage())
    for index, piece in enumerate(replies.streamed(reply)):
        if index == 3:  # noqa: PLR2004  # in the middle of its text
            raise ConnectionResetError("the rehearsed reply was cut")
        yield piece


def error(status: int, message: str, kind: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error in the API's own shape."""
    body = replies.error_body(status, message, kind)
    return Response(body, status_code=status, headers=headers, media_type="application/json")
