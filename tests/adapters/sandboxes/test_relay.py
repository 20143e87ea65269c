"""The relay as a process of its own: between a program's connections and the sockets that lead out."""

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kapelle.adapters.sandboxes.leading import RELAY

FEW = 24
"""Open files that the relay may have: not enough for all that a test asks for."""
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Outside:
    """What the relay leads to: it says what it hears, and to whom it is told to it says no at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.busy = False
        self._open: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.append(writer)
        if self.busy:
            writer.write(b"too busy\n")
        else:
            while line := await reader.readline():
                writer.write(b"heard " + line)
        writer.close()

    async def stop(self) -> None:
        self._server.close()
        for writer in self._open:
            writer.close()
        await self._server.wait_closed()


class Inside:
    """The program's side."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def enter(self) -> Stream:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.open_connection("127.0.0.1", self.port)
            await asyncio.sleep(0)

    async def ask(self, stream: Stream, word: str) -> str:
        stream[1].write(f"{word}\n".encode())
        async with asyncio.timeout(20):
            return (await stream[0].readline()).decode()


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[Outside]:
    found = Outside(tmp_path / "out")
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def inside(outside: Outside) -> AsyncIterator[Inside]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    relay = shlex.join([sys.executable, "-I", "-S", str(RELAY), f"{port}={outside.path}", "--", "cat"])
    # Its program ends with its input; the relay itself goes on until its group is ended, as in a sandbox.
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", f"ulimit -n {FEW}; exec {relay}", stdin=asyncio.subprocess.PIPE, start_new_session=True
    )
    yield Inside(port)
    os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def test_what_is_said_comes_through_both_ways(inside: Inside) -> None:
    stream = await inside.enter()
    assert await inside.ask(stream, "you") == "heard you\n"
    stream[1].close()


async def test_more_connections_than_it_may_have_files_wait_and_end_nothing(inside: Inside) -> None:
    first = await inside.enter()
    assert await inside.ask(first, "first") == "heard first\n"
    others = [await inside.enter() for _ in range(2 * FEW)]
    asking = [asyncio.ensure_future(inside.ask(stream, f"{number}")) for number, stream in enumerate(others)]
    done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert done.pop().result().startswith("heard ")
    # Who is inside goes on, and each that leaves makes room for one that waits.
    assert await inside.ask(first, "still") == "heard still\n"
    for stream, asked in zip(others, asking, strict=True):
        assert (await asked).startswith("heard ")
        stream[1].close()
    first[1].close()


async def test_why_somebody_is_turned_away_comes_through(inside: Inside, outside: Outside) -> None:
    outside.busy = True
    for _ in range(5):
        stream = await inside.enter()
        assert await inside.ask(stream, "you") == "too busy\n"
        stream[1].close()


async def test_where_nobody_leads_a_connection_ends_and_the_next_leader_is_found(inside: Inside, outside: Outside) -> None:
    stream = await inside.enter()
    assert await inside.ask(stream, "you") == "heard you\n"
    stream[1].close()
    await outside.stop()
    lost = await inside.enter()
    with contextlib.suppress(ConnectionResetError):
        assert await lost[0].read() == b""
    lost[1].close()
    outside.path.unlink(missing_ok=True)
    await outside.start()
    again = await inside.enter()
    assert await inside.ask(again, "again") == "heard again\n"
    again[1].close()
