"""The relay: in a sandbox without a network, it listens where a network would be, and passes on to the sockets that lead out.

Started inside as ``python relay.py PORT=SOCKET ... -- PROGRAM ...``: it listens, leaves a child of its own to pass on, and
becomes the program; so nothing that the program does comes too early. Standard library alone: it is started with every agent.
"""

import os
import selectors
import socket
import sys
from contextlib import suppress

PIECE = 1 << 16
MOST = 1 << 20
"""Bytes that may wait for somebody who does not read."""
BACKLOG = 128
REST_S = 0.05
"""Seconds for which nobody is let in when there is nothing to let them in with."""


def main() -> None:
    """Listen, pass on, become the program."""
    split = sys.argv.index("--")
    program = sys.argv[split + 1 :]
    leads: dict[socket.socket, str] = {}
    for given in sys.argv[1:split]:
        port, _, target = given.partition("=")
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(port)))
        listener.listen(BACKLOG)
        leads[listener] = target
    if os.fork() == 0:
        _leave_the_streams()
        _Relay(leads).run()
        return
    os.execvp(program[0], program)  # noqa: S606  # that is what it is for


def _leave_the_streams() -> None:
    """Hold none of the program's streams: whoever reads them waits for their end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


class _Relay:
    def __init__(self, leads: dict[socket.socket, str]) -> None:
        self._selector = selectors.DefaultSelector()
        self._leads = leads
        self._resting = True
        """Whether nobody is let in just now: for want of files, or since nobody outside takes any more."""
        for listener in leads:
            listener.setblocking(False)

    def run(self) -> None:
        while True:
            if self._resting:
                self._resting = False
                for listener, target in self._leads.items():
                    self._selector.register(listener, selectors.EVENT_READ, target)
            for key, events in self._selector.select():
                if isinstance(key.data, str):
                    if not self._resting:
                        self._accept(key.fileobj, key.data)  # type: ignore[arg-type]
                elif not key.data.closed:
                    key.data.go_on(events)
            if self._resting:
                # Somebody may leave meanwhile; those who wait do so in the listener's queue.
                for key, events in self._selector.select(REST_S):
                    if not key.data.closed:
                        key.data.go_on(events)

    def _rest(self) -> None:
        self._resting = True
        for listener in self._leads:
            self._selector.unregister(listener)

    def _accept(self, listener: socket.socket, target: str) -> None:
        # First what may be lacking: whoever cannot be led out yet stays in the queue.
        try:
            far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:
            self._rest()
            return
        leads = True
        try:
            far.setblocking(False)
            far.connect(target)
        except BlockingIOError:
            far.close()
            self._rest()
            return
        except OSError:
            # Nobody leads just now. Whoever asked tries again, or says that the connection was reset.
            leads = False
        try:
            near, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            far.close()
            return
        except OSError:
            far.close()
            self._rest()
            return
        if not leads:
            far.close()
            near.close()
            return
        one, other = _End(near, self._selector), _End(far, self._selector)
        one.other, other.other = other, one
        one.begin()


class _End:
    """One end of a connection: what it says goes to the other."""

    other: "_End"

    def __init__(self, stream: socket.socket, selector: selectors.BaseSelector) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.selector = selector
        self.waiting = bytearray()
        """What is still to be written here."""
        self.said_all = False
        self.shut = False
        self.closed = False
        self.watched = 0

    def begin(self) -> None:
        """Begin to pass on, both ways."""
        try:
            self.watch()
            self.other.watch()
        except OSError:
            self._break()

    def watch(self) -> None:
        """Ask for what can go on here."""
        wanted = 0
        if not self.said_all and len(self.other.waiting) < MOST:
            wanted |= selectors.EVENT_READ
        if self.waiting:
            wanted |= selectors.EVENT_WRITE
        if wanted == self.watched:
            return
        if not self.watched:
            self.selector.register(self.stream, wanted, self)
        elif not wanted:
            self.selector.unregister(self.stream)
        else:
            self.selector.modify(self.stream, wanted, self)
        self.watched = wanted

    def go_on(self, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._read()
            if events & selectors.EVENT_WRITE:
                self.flush()
            self._settle()
        except OSError:
            self._break()

    def _read(self) -> None:
        try:
            data = self.stream.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            # What it has said before is passed on still.
            self.hears_no_more()
            data = b""
        if not data:
            self.said_all = True
            return
        self.other.waiting += data
        self.other.flush()

    def flush(self) -> None:
        try:
            while self.waiting:
                del self.waiting[: self.stream.send(self.waiting)]
        except BlockingIOError:
            return
        except OSError:
            # It may have said why before it hung up: that is still to be read.
            self.hears_no_more()

    def hears_no_more(self) -> None:
        """Give up what is to be said here, and hear nothing more for it."""
        self.waiting.clear()
        self.shut = self.other.said_all = True

    def _settle(self) -> None:
        for end in (self, self.other):
            if end.other.said_all and not end.waiting and not end.shut:
                end.shut = True
                with suppress(OSError):
                    end.stream.shutdown(socket.SHUT_WR)
        if self.shut and self.other.shut:
            self._break()
            return
        self.watch()
        self.other.watch()

    def _break(self) -> None:
        for end in (self, self.other):
            if end.watched:
                end.selector.unregister(end.stream)
                end.watched = 0
            end.stream.close()
            end.closed = True


if __name__ == "__main__":
    main()
