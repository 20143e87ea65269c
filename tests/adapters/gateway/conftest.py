"""A gateway with a meter that remembers, and an upstream that says what a test wants, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kapelle.adapters.gateway.server import ModelGateway
from kapelle.core.calls import Held, ModelCall, Refusal
from kapelle.core.conversation import Trouble
from kapelle.core.gateway import Ticket, Upstream
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId
from kapelle.testing.evaluating import PlainEvaluator

PATIENCE = 30.0


class RememberingMeter:
    """Lets every call pass unless it was told why not."""

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.why = Trouble.BUDGET
        self.held = 0
        """How often a call is to be held before it is let through."""
        self.waited = 0
        self.asked: list[AgentId] = []
        self.guessed: list[ModelCall] = []
        self.kept_ids: list[str] = []
        self.calls: list[ModelCall] = []
        self.heard_of: list[str] = []
        self.too_much: list[tuple[AgentId, str]] = []
        self._waiting: asyncio.Queue[ModelCall] = asyncio.Queue()

    def admit(self, call: ModelCall) -> Refusal | Held | None:
        self.asked.append(call.agent_id)
        self.guessed.append(call)
        if self.held and not self.refusal:
            self.held -= 1
            return Held()
        return None if self.refusal is None else Refusal(trouble=self.why, message=self.refusal)

    async def room(self) -> None:
        self.waited += 1

    async def kept(self, call_id: str) -> None:
        self.kept_ids.append(call_id)

    def heard(self, call_id: str) -> None:
        self.heard_of.append(call_id)

    def record(self, call: ModelCall) -> None:
        self.calls.append(call)
        self._waiting.put_nowait(call)

    def crowded(self, agent_id: AgentId, reason: str) -> None:
        self.too_much.append((agent_id, reason))

    async def booked(self) -> ModelCall:
        """Wait for the next call that is booked."""
        async with asyncio.timeout(PATIENCE):
            return await self._waiting.get()


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Sending:
    """What the upstream answers, piece by piece."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def wait_for_hanging_up(self) -> None:
        """Wait until the other side has closed the connection."""
        await self._reader.read()

    async def whole(self, body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        await self._head(status, {"content-type": kind, "content-length": str(len(body)), **headers})
        self._writer.write(body)
        await self._writer.drain()

    async def begin(self, kind: str = "text/event-stream") -> None:
        await self._head(200, {"content-type": kind, "transfer-encoding": "chunked"})

    async def piece(self, data: bytes) -> None:
        self._writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self._writer.drain()

    async def end(self) -> None:
        await self.piece(b"")

    async def stream(self, *pieces: bytes) -> None:
        await self.begin()
        for data in pieces:
            await self.piece(data)
        await self.end()

    async def _head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} x", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()), "", ""]
        self._writer.write("\r\n".join(lines).encode())
        await self._writer.drain()


Answering = Callable[[Sending], Awaitable[None]]


@dataclass(kw_only=True, slots=True)
class TestUpstream:
    """A model API; every connection carries one request."""

    __test__ = False
    answers: Answering
    url: str = ""
    received: list[Received] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        method, target, _ = first.split(" ")
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.received.append(Received(method=method, target=target, headers=headers, body=body))
        try:
            await self.answers(Sending(reader, writer))
        finally:
            writer.close()


@pytest.fixture
def meter() -> RememberingMeter:
    return RememberingMeter()


@pytest.fixture
async def upstream() -> AsyncIterator[TestUpstream]:
    async def silent(sending: Sending) -> None:
        await sending.whole(b"{}")

    found = TestUpstream(answers=silent)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield found
    server.close()
    await server.wait_closed()


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=PATIENCE) as found:
        yield found


class Secrets:
    """Knows what a test put in."""

    def __init__(self) -> None:
        self.known = {"env:KEY": "sk-real"}

    def resolve(self, reference: str) -> str | None:
        return self.known.get(reference)


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


@pytest.fixture
async def make_gateway(
    tmp_path: Path, secrets: Secrets, client: httpx2.AsyncClient
) -> AsyncIterator[Callable[..., ModelGateway]]:
    made: list[ModelGateway] = []
    numbers = count(1)

    def make(**changes: Any) -> ModelGateway:
        given: dict[str, Any] = {
            "port_file": tmp_path / "state" / "gateway.port",
            "credentials": secrets,
            "evaluator": PlainEvaluator(),
            "now": lambda: datetime(2026, 1, 1, tzinfo=UTC),
            "new_id": lambda: f"m{next(numbers)}",
        }
        made.append(ModelGateway(**{**given, **changes}))
        return made[-1]

    yield make
    # Connections that are open without need would make every stop wait for them.
    await client.aclose()
    for gateway in made:
        await gateway.stop()


@pytest.fixture
def make_ticket() -> Callable[..., Ticket]:
    def make(token: str = "token-1", **changes: Any) -> Ticket:  # noqa: S107
        given: dict[str, Any] = {
            "agent_id": AgentId("g1"),
            "run_id": RunId("r1"),
            "task_id": TaskId("t1"),
            "attempt_id": AttemptId("a1"),
            "task": "api",
            "attempt": 1,
            "round": 0,
            "cwd": "/w/slot-1",
            "upstream": Upstream(),
        }
        return Ticket(token=token, **{**given, **changes})

    return make
