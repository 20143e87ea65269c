"""An opened way: for a process that reaches nothing by itself, a directory with sockets that its sandbox shows to it alone.

Which socket somebody comes by says who it is: there is nothing to steal and nothing to forge. The directory outlives the
leader, and the next one makes the sockets in it again, so a process that is still at work finds them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from kapelle.adapters.network.proxy import Proxy, Resolver, closing, join, resolve
from kapelle.adapters.system.sockets import listening
from kapelle.core.network import Decision, Destination, Pass

MODEL, PROXY = "model", "proxy"
MANY = 500
"""Different decisions about one process that are told each by itself; further ones are told together."""
BACKLOG = 128
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Opened:
    """The way of one process."""

    def __init__(self, holder: Pass, folder: str, told: Callable[[Decision], None], resolver: Resolver | None) -> None:
        self._holder = holder
        self.folder = folder
        self._folder = Path(folder)
        self._told = told
        self._proxy = Proxy(self._decided, resolver or resolve)
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._again: dict[tuple[Destination, str], int] = {}
        """How often something was decided again since it was told first."""

    async def begin(self) -> None:
        """Listen.

        Raises:
            OSError: the sockets cannot be made.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._folder.chmod(0o755)
        await self._serve(PROXY, lambda reader, writer: self._proxy.serve(self._holder, reader, writer))
        if self._holder.model is not None:
            await self._serve(MODEL, self._to_model)

    async def end(self) -> None:
        """Listen no longer, break off what is open, and tell what was not told yet."""
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        for name in (MODEL, PROXY):
            with suppress(FileNotFoundError, NotADirectoryError):
                (self._folder / name).unlink()
        for (to, refusal), times in self._again.items():
            if times:
                self._told(Decision(holder=self._holder, to=to, refusal=refusal, times=times))
        self._again.clear()

    async def _serve(self, name: str, serve: Serve) -> None:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connected(serve, reader, writer)

        listener = listening(self._folder, name, BACKLOG)
        try:
            # Whoever sees the directory may come in: nobody but its process does.
            (self._folder / name).chmod(0o666)
            self._servers.append(await asyncio.start_unix_server(connected, sock=listener))
        except BaseException:
            listener.close()
            raise

    def _connected(self, serve: Serve, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def answer() -> None:
            with closing(writer):
                await serve(reader, writer)

        task = asyncio.ensure_future(answer())
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _to_model(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await asyncio.open_connection("127.0.0.1", self._holder.model)
        except OSError:
            # As if it had been asked directly: the program tries again by itself.
            return
        with closing(far[1]):
            await join((reader, writer), far)

    def _decided(self, decision: Decision) -> None:
        """Tell what is new at once, and how often it came again at the end: nobody can fill the log by asking."""
        key = (decision.to, decision.refusal)
        if key in self._again:
            self._again[key] += 1
            return
        if len(self._again) >= MANY:
            rest = (Destination(host="*", port=0), decision.refusal)
            self._again[rest] = self._again.get(rest, 0) + 1
            return
        self._again[key] = 0
        self._told(decision)
