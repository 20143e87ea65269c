"""The proxy: the one way from a closed sandbox to the network, for HTTP (RFC 9110) and whatever goes through CONNECT.

It resolves names itself and connects to the very addresses that it has judged, so that a name cannot lead to one address when
it is looked at and to another when it is used. What it refuses is said where programs show it: in the status line.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import h11

from kapelle.core.network import Decision, Destination, Pass, address_refusal, name_refusal

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
CONNECT_S = 10.0
"""Seconds that a host may take to answer, at each of its addresses."""
RESOLVERS = 8
"""Names that are looked up at once; half of them for one process."""
HEAD_S = 30.0
"""Seconds that a request may take to come."""
PIECE = 1 << 16
WEB_PORT = 80
HOP_BY_HOP = frozenset({b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"te", b"upgrade"})
"""Headers that are for the proxy and nobody behind it: RFC 9110, 7.6.1."""


class Unreachable(Exception):
    """A host that may be reached does not answer."""


@dataclass(frozen=True)
class Asked:
    """What somebody asks of the proxy."""

    to: Destination
    tunnel: bool
    head: bytes
    """What is to be sent on first: nothing for a tunnel."""


class Resolving:
    """Looks up the addresses of hosts as this machine does, in threads of its own: the leader needs the common ones."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolving")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of *host*.

        Raises:
            OSError: it has none.
        """
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        """Look up nothing more; what is being looked up comes to its end by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Proxy:
    """Serves one connection after the other; what it decides is told."""

    def __init__(self, told: Callable[[Decision], None], resolver: Resolver) -> None:
        self._told = told
        self._resolve = resolver
        self._looking_up = asyncio.Semaphore(RESOLVERS // 2)

    async def serve(self, holder: Pass, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes on a connection of *holder*, to its end."""
        try:
            async with asyncio.timeout(HEAD_S):
                asked, rest = await _read(reader)
        except (h11.RemoteProtocolError, ValueError) as error:
            await _answer(writer, 400, f"what was asked is no request to a proxy: {error}")
            return
        except (OSError, TimeoutError, EOFError):
            return
        refusal, addresses = await self._judge(holder, asked.to)
        self._told(Decision(holder=holder, to=asked.to, refusal=refusal))
        if refusal:
            await _answer(writer, 403, f"{asked.to.host}:{asked.to.port} may not be reached: {refusal}")
            return
        try:
            far_reader, far_writer = await _connect(asked.to, addresses)
        except Unreachable as error:
            await _answer(writer, 502, str(error))
            return
        with closing(far_writer):
            if asked.tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            far_writer.write(asked.head + rest)
            await join((reader, writer), (far_reader, far_writer))

    async def _judge(self, holder: Pass, to: Destination) -> tuple[str, Sequence[str]]:
        """Return why *to* may not be reached, and its addresses."""
        if refusal := name_refusal(holder.network, to):
            return refusal, ()
        try:
            async with self._looking_up:
                addresses = await self._resolve(to.host, to.port)
        except (OSError, UnicodeError) as error:
            return f"its name leads nowhere ({error})", ()
        return address_refusal(holder.network, to, addresses), addresses


async def _read(reader: asyncio.StreamReader) -> tuple[Asked, bytes]:
    """Return what is asked, and what has come after it already.

    Raises:
        ValueError: it is nothing that a proxy can do.
        h11.RemoteProtocolError: it is no HTTP.
        EOFError: nothing came.
    """
    connection = h11.Connection(h11.SERVER)
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            rest, _ = connection.trailing_data
            return _asked(event), bytes(rest)
        data = await reader.read(PIECE)
        if not data:
            raise EOFError
        connection.receive_data(data)


def _asked(request: h11.Request) -> Asked:
    target = request.target.decode("ascii")
    if request.method == b"CONNECT":
        parts = urlsplit(f"//{target}")
        if not parts.hostname or parts.port is None:
            raise ValueError(f"{target[:100]} is no host and port")
        return Asked(Destination(host=parts.hostname, port=parts.port), tunnel=True, head=b"")
    parts = urlsplit(target)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{target[:100]} is no address of the web")
    path = target[len("http://") + len(parts.netloc) :].partition("#")[0]
    lines = [b"%s %s HTTP/1.1" % (request.method, (path if path.startswith("/") else f"/{path}").encode("ascii"))]
    lines += [b"%s: %s" % (name, value) for name, value in request.headers.raw_items() if name.lower() not in HOP_BY_HOP]
    # One request for each connection: the next may be for another host.
    head = b"\r\n".join((*lines, b"Connection: close", b"", b""))
    return Asked(Destination(host=parts.hostname, port=parts.port or WEB_PORT), tunnel=False, head=head)


async def _connect(to: Destination, addresses: Iterable[str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first of *addresses* that answers.

    Raises:
        Unreachable: none does.
    """
    problem: Exception | None = None
    for address in addresses:
        try:
            async with asyncio.timeout(CONNECT_S):
                return await asyncio.open_connection(address, to.port)
        except (OSError, TimeoutError) as error:
            problem = error
    said = "it took too long" if isinstance(problem, TimeoutError) else str(problem)
    raise Unreachable(f"{to.host}:{to.port} does not answer: {said}") from problem


def answered(status: int, text: str) -> bytes:
    """Return a reply with *text* in the status line, which programs show, and in the body, which some do."""
    plain = re.sub(r"[^\x20-\x7e]", "?", f"Kapelle: {text}")[:500]
    body = f"{plain}\n".encode("ascii")
    head = f"HTTP/1.1 {status} {plain}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode("ascii") + body


async def _answer(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    with suppress(OSError):
        writer.write(answered(status, text))
        await writer.drain()


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def join(one: Stream, other: Stream) -> None:
    """Pass on what comes, both ways, until both have ended; one that breaks off ends both."""
    with suppress(ExceptionGroup, OSError):
        async with asyncio.TaskGroup() as group:
            group.create_task(_pass_on(one[0], other[1]))
            group.create_task(_pass_on(other[0], one[1]))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class closing:  # noqa: N801  # as in contextlib, which has none for writers
    """Close a writer at the end, whatever happens."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def __enter__(self) -> asyncio.StreamWriter:
        return self._writer

    def __exit__(self, *_: object) -> None:
        self._writer.close()
