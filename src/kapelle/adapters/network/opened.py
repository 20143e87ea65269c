"""An opened way: for a process that reaches nothing by itself, a directory with sockets that its sandbox shows to it alone.

Which socket somebody comes by says who it is: there is nothing to steal and nothing to forge. The directory outlives the
leader, and the next one makes the sockets in it again, so a process that is still at work finds them.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kapelle.adapters.network.proxy import Proxy, Resolver, answered, closing, join
from kapelle.adapters.system.entrances import Entrance, Room, Serve, Streams
from kapelle.adapters.system.files import share
from kapelle.adapters.system.sockets import listening
from kapelle.core.network import Decision, Destination, Pass

MODEL, PROXY = "model", "proxy"
MANY = 500
"""Different decisions about one process that are told each by itself; further ones are told together."""
MOST = 96
"""Connections of one process at once, to its model and through the proxy together: programs that fetch packages open the most,
and none of them half as many."""
BACKLOG = 128
EVERYWHERE = Destination(host="*", port=0)
"""For what is told of no single place."""


class Opened:
    """The way of one process."""

    def __init__(self, holder: Pass, folder: str, told: Callable[[Decision], None], resolver: Resolver) -> None:
        self._holder = holder
        self.folder = folder
        self._folder = Path(folder)
        self._told = told
        self._proxy = Proxy(self._decided, resolver)
        self._entrances: list[Entrance] = []
        self._calls = False
        """Whether there is a socket to the model."""
        self._room = Room(share(MOST))
        self._again: dict[tuple[Destination, str], int] = {}
        """How often something was decided again since it was told first."""

    def begin(self) -> None:
        """Listen.

        Raises:
            OSError: the sockets cannot be made.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._folder.chmod(0o755)
        self._listen(PROXY, lambda reader, writer: self._proxy.serve(self._holder, reader, writer))
        self._let_call()

    def hand_to(self, holder: Pass) -> None:
        """Decide as *holder* from now on, which is another name for the same process: one that has a task by now.

        What was decided for the one before is told as that one's, and of this one anew.

        Raises:
            OSError: it may call its model now, and the socket for that cannot be made.
        """
        if holder == self._holder:
            return
        self._tell_rest()
        self._holder = holder
        self._let_call()

    def _let_call(self) -> None:
        if self._holder.model is not None and not self._calls:
            self._listen(MODEL, self._to_model)
            self._calls = True

    async def end(self) -> None:
        """Listen no longer, break off what is open, and tell what was not told yet."""
        for entrance in self._entrances:
            entrance.close()
        await self._room.cleared()
        for name in (MODEL, PROXY):
            with suppress(FileNotFoundError, NotADirectoryError):
                (self._folder / name).unlink()
        self._tell_rest()

    def _tell_rest(self) -> None:
        for (to, refusal), times in self._again.items():
            if times:
                self._told(Decision(holder=self._holder, to=to, refusal=refusal, times=times))
        self._again.clear()

    def _listen(self, name: str, serve: Serve) -> None:
        def make() -> socket.socket:
            listener = listening(self._folder, name, BACKLOG)
            try:
                # Whoever sees the directory may come in: nobody but its process does.
                (self._folder / name).chmod(0o666)
            except BaseException:
                listener.close()
                raise
            return listener

        full = f"it had {self._room.most} connections open at once, and more there may not be"
        enter = Streams(self._room, serve, self._failed, full=(full, answered(503, full)))
        self._entrances.append(Entrance(make, enter, self._failed))

    def _failed(self, reason: str) -> None:
        self._decided(Decision(holder=self._holder, to=EVERYWHERE, refusal=reason))

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
            rest = (EVERYWHERE, decision.refusal)
            self._again[rest] = self._again.get(rest, 0) + 1
            return
        self._again[key] = 0
        self._told(decision)
