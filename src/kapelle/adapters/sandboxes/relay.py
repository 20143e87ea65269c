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
        for listener, target in leads.items():
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, target)

    def run(self) -> None:
        while True:
            for key, events in self._selector.select():
                if isinstance(key.data, str):
                    self._accept(key.fileobj, key.data)  # type: ignore[arg-type]
                elif not key.data.closed:
                    key.data.go_on(events)

    def _accept(self, listener: socket.socket, target: str) -> None:
        with suppress(BlockingIOError):
            near, _ = listener.accept()
            far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                far.connect(target)
            except OSError:
                # Nobody leads just now. Whoever asked tries again, or says that the connection was reset.
                far.close()
                near.close()
                return
            one, other = _End(near, self._selector), _End(far, self._selector)
            one.other, other.other = other, one
            one.watch()
            other.watch()


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
        except BlockingIOError:
            return
        except OSError:
            self._break()
            return
        self._settle()

    def _read(self) -> None:
        data = self.stream.recv(PIECE)
        if not data:
            self.said_all = True
            return
        self.other.waiting += data
        with suppress(BlockingIOError):
            self.other.flush()

    def flush(self) -> None:
        while self.waiting:
            del self.waiting[: self.stream.send(self.waiting)]

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
