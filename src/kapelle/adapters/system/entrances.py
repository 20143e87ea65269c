r"""Entrances: sockets that agents' programs come in by. No guest, and no shortage of the machine, closes one for the others.

    listening --somebody comes--> inside (a task for each) --served, failed or hung up--> gone
        |  \--there is no room--> told why, closed at once, and nobody is looked at for a moment
        \--the system lacks something, or the socket fails--> told, rested, made again where it has to be

Whoever is turned away costs the time to say so, and coming again and again costs whoever does it: meanwhile they wait outside.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

LACKING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What the system says when it has nothing left to let somebody in with."""
GONE = (BlockingIOError, InterruptedError, ConnectionAbortedError)
"""Whoever came is not there any more."""
OFTEN = 100
"""Times in a row that somebody should be there and is not: then the socket is broken, whatever the system says of it."""
REST_S = 0.05
"""Seconds for which nobody is looked at after somebody was turned away, or could not be let in."""
WORD_S = 0.5
"""Seconds that whoever is turned away has to hear why."""
LIMIT = 1 << 16
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Room:
    """How many may be inside at once, by one entrance or by several."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.guests: set[asyncio.Task[None]] = set()
        self.outside: set[asyncio.Task[None]] = set()
        """Who found no room, and is being told so: never many, see ``REST_S``."""

    @property
    def full(self) -> bool:
        """Whether nobody else can come in."""
        return len(self.guests) >= self.most

    @property
    def everybody(self) -> set[asyncio.Task[None]]:
        """Whoever is served, or turned away."""
        return self.guests | self.outside

    def clear(self) -> None:
        """Break off whatever is going on."""
        for guest in self.everybody:
            guest.cancel()

    async def cleared(self) -> None:
        """Break it off, and wait until all of it has ended."""
        self.clear()
        if everybody := self.everybody:
            await asyncio.wait(everybody)


class Entrance:
    """One socket that listens."""

    def __init__(
        self, make: Callable[[], socket.socket], enter: Callable[[socket.socket], bool], told: Callable[[str], None]
    ) -> None:
        """Listen on what *make* makes, and have those who come *enter*, which says whether there was room for them.

        What goes wrong is *told*, once each time.

        Raises:
            OSError: the socket cannot be made.
        """
        self._make = make
        self._enter = enter
        self._told = told
        self._said = ""
        self._in_vain = 0
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
        except GONE as error:
            self._in_vain += 1
            if self._in_vain > OFTEN:
                self._broken(listener, error)
            return
        except OSError as error:
            if error.errno not in LACKING:
                self._broken(listener, error)
                return
            self._pause(listener)
            self._tell(f"somebody could not be let in ({error.strerror or error})")
            return
        self._said, self._in_vain = "", 0
        connection.setblocking(False)
        if not self._enter(connection):
            self._pause(listener)

    def _broken(self, listener: socket.socket, error: OSError) -> None:
        self._in_vain = 0
        self._pause(listener)
        self._forget()
        self._tell(f"nobody could be let in any more ({error.strerror or error})")

    def _pause(self, listener: socket.socket) -> None:
        self._loop.remove_reader(listener)
        self._rest = self._loop.call_later(REST_S, self._go_on)

    def _go_on(self) -> None:
        try:
            if self._listener is None:
                self._listener = self._make()
        except OSError as error:
            self._rest = self._loop.call_later(REST_S, self._go_on)
            self._tell(f"nobody can be let in ({error.strerror or error})")
            return
        self._watch(self._listener)

    def _tell(self, reason: str) -> None:
        if self._said != reason:
            self._said = reason
            self._told(reason)


class Streams:
    """Lets those who find room in, and has each of them served by itself; to be given to an ``Entrance`` as ``enter``."""

    def __init__(
        self, room: Room, serve: Serve, told: Callable[[str], None], *, full: tuple[str, bytes], limit: int = LIMIT
    ) -> None:
        """*full* is what is *told* of somebody who finds no room, and what is said to them; *limit* as for streams."""
        self._room = room
        self._serve = serve
        self._told = told
        self._full = full
        self._limit = limit

    def __call__(self, connection: socket.socket) -> bool:
        """Let somebody in; say whether there was room."""
        if self._room.full:
            self._begin(connection, self._turn_away(connection), self._room.outside)
            self._told(self._full[0])
            return False
        self._begin(connection, self._receive(connection), self._room.guests)
        return True

    def _begin(self, connection: socket.socket, act: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        guest = asyncio.ensure_future(act)
        among.add(guest)
        guest.add_done_callback(among.discard)
        # Not at the end of the task itself: one that is cancelled before it began has none.
        guest.add_done_callback(lambda ended: connection.close() if ended.cancelled() else None)

    async def _turn_away(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            # It is new: there is space for a few words, whether or not anybody reads them.
            connection.send(self._full[1])
            connection.shutdown(socket.SHUT_WR)
            # Most say all that they have to say before they read.
            await asyncio.sleep(WORD_S)

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
            await _gone(writer)


async def _gone(writer: asyncio.StreamWriter) -> None:
    """Close *writer* and wait until it is: somebody who reads nothing has a moment, and then it is broken off."""
    writer.close()
    try:
        async with asyncio.timeout(WORD_S):
            await writer.wait_closed()
    except OSError:
        # TimeoutError is one, too.
        return
    finally:
        writer.transport.abort()
