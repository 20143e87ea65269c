r"""Entrances: sockets that agents' programs come in by. No guest, and no shortage of the machine, closes one for the others.

    listening --somebody comes--> inside (a task for each) --served, failed or hung up--> gone
        |  \--there is no room--> told why, closed at once, and nobody is looked at for a moment
        \--the system lacks something, or the socket fails--> told, rested, made again where it has to be

Whoever is turned away costs the time to say so, and coming again and again costs whoever does it: meanwhile they wait outside.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

LACKING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What the system says when it has nothing left to let somebody in with."""
GONE = (BlockingIOError, InterruptedError, ConnectionAbortedError)
"""Whoever came is not there any more."""
REST_S = 0.05
"""Seconds for which nobody is looked at after somebody was turned away, or could not be let in."""
LIMIT = 1 << 16
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Room:
    """How many may be inside at once, by one entrance or by several."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.guests: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Whether nobody else can come in."""
        return len(self.guests) >= self.most

    def clear(self) -> None:
        """Break off whatever is going on inside."""
        for guest in self.guests:
            guest.cancel()

    async def cleared(self) -> None:
        """Break it off, and wait until all of it has ended."""
        self.clear()
        if self.guests:
            await asyncio.wait(self.guests)


class Entrance:
    """One socket, and who comes in by it."""

    def __init__(
        self,
        make: Callable[[], socket.socket],
        room: Room,
        *,
        serve: Serve,
        told: Callable[[str], None],
        full: tuple[str, bytes],
        limit: int = LIMIT,
    ) -> None:
        """Listen on what *make* makes, and have those who find room served.

        What goes wrong is *told*. *full* is what is told of somebody who finds no room, and what is said to them. *limit* is
        how much of what a guest has said is held before it is read.

        Raises:
            OSError: the socket cannot be made.
        """
        self._make = make
        self._room = room
        self._serve = serve
        self._told = told
        self._full = full
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._listener: socket.socket | None = make()
        self._watch(self._listener)

    def close(self) -> None:
        """Let nobody in any more; who is inside stays."""
        if self._rest is not None:
            self._rest.cancel()
        self._forget()

    def _watch(self, listener: socket.socket) -> None:
        self._loop.add_reader(listener, self._look, listener)

    def _forget(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _look(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except GONE:
            return
        except OSError as error:
            self._pause(listener)
            if error.errno not in LACKING:
                self._forget()
            self._told(f"somebody could not be let in ({error.strerror or error})")
            return
        if self._room.full:
            self._pause(listener)
            with connection, suppress(OSError):
                # It is new: there is room for a few words whether or not anybody reads them.
                connection.setblocking(False)
                connection.send(self._full[1])
            self._told(self._full[0])
            return
        connection.setblocking(False)
        guest = asyncio.ensure_future(self._receive(connection))
        self._room.guests.add(guest)
        guest.add_done_callback(self._room.guests.discard)
        # Not at the end of the task itself: one that is cancelled before it began has none.
        guest.add_done_callback(lambda ended: connection.close() if ended.cancelled() else None)

    def _pause(self, listener: socket.socket) -> None:
        self._loop.remove_reader(listener)
        self._rest = self._loop.call_later(REST_S, self._go_on)

    def _go_on(self) -> None:
        try:
            if self._listener is None:
                self._listener = self._make()
        except OSError as error:
            self._rest = self._loop.call_later(REST_S, self._go_on)
            self._told(f"nobody can be let in ({error.strerror or error})")
            return
        self._watch(self._listener)

    async def _receive(self, connection: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=self._limit)
        except OSError:
            connection.close()
            return
        try:
            await self._serve(reader, writer)
        except OSError:
            # Whoever came has gone, and asks again or does not care any more.
            return
        except Exception as error:  # noqa: BLE001  # one guest chose the words: what is wrong with them is nobody else's end
            self._told(f"somebody could not be served ({type(error).__name__}: {error})")
        finally:
            writer.close()
