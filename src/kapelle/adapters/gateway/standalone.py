"""A rehearsal served by itself: for any client of the Messages API, without Kapelle's engine."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kapelle.adapters.gateway.rehearsal import Caller
from kapelle.adapters.gateway.rehearse import RehearsedUpstream, log_no_broken_replies
from kapelle.core.budget import Usage
from kapelle.core.evaluating import Evaluator
from kapelle.core.frozen import frozen

LONGEST_NUMBER = 6


@frozen
class Served:
    """One request that was answered."""

    task: str
    status: int
    model: str
    usage: Usage


async def serve_rehearsal(
    path: Path,
    *,
    host: str,
    port: int,
    log: Path,
    evaluator: Evaluator,
    on_request: Callable[[Served], None],
    on_ready: Callable[[int], None],
) -> None:
    """Serve the rehearsal at *path* until the process is interrupted.

    The working directory is read from the CLI's own system prompt, the task from the header ``X-Kapelle-Task`` and the
    attempt from ``X-Kapelle-Attempt`` (1 when it is missing).

    Raises:
        FileMissing: the file cannot be read.
        FileInvalid: it has mistakes.
    """
    now = lambda: datetime.now(UTC)  # noqa: E731, TID251  # wording of an error only
    upstream = RehearsedUpstream.open(path, log, now, evaluator)

    async def handle(request: Request) -> Response:
        if request.method == "HEAD":
            return Response()
        task = request.headers.get("x-kapelle-task", "")
        attempt = request.headers.get("x-kapelle-attempt", "1")
        caller = Caller(
            run="",
            task=task,
            attempt=int(attempt) if attempt.isdecimal() and len(attempt) <= LONGEST_NUMBER else 1,
            round=None,
            cwd="",
        )

        def booked(status: int, model: str, usage: Usage, _: str) -> None:
            on_request(Served(task=task, status=status, model=model, usage=usage))

        return await upstream.respond(request, await request.body(), caller, booked)

    app = Starlette(routes=[Route("/{path:path}", handle, methods=["GET", "POST", "HEAD"])])
    config = uvicorn.Config(app, host=host, port=port, log_config=None, access_log=False, lifespan="off")
    log_no_broken_replies()
    server = _Announcing(config, on_ready)
    await server.serve()


class _Announcing(uvicorn.Server):
    """Says which port it has, once it has one."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                self._on_ready(listener.getsockname()[1])
