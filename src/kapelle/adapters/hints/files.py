"""Hints on one machine: datagrams to the Unix sockets of whoever listens."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

LONGEST_PATH = 100
"""Bytes of a socket's path that every system takes."""


class FileHints:
    """See ``core.ports.Hints``. Each listener has a socket of its own in one folder; a ring goes to all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ring(self) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for entry in list(self._folder.iterdir()):
                try:
                    sender.sendto(b"!", str(entry))
                except (ConnectionRefusedError, FileNotFoundError):
                    # Its listener is gone without a word.
                    entry.unlink(missing_ok=True)
                except OSError:
                    continue

    async def listen(self) -> AsyncIterator[None]:
        path = self._folder / f"{os.getpid()}"
        if len(str(path).encode()) > LONGEST_PATH:
            # Such a socket cannot be made; the look once a second must do.
            while True:
                await asyncio.sleep(1)
                yield
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        # What listeners left that were killed goes with it.
        self.ring()
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.setblocking(False)
            listener.bind(str(path))
            try:
                while True:
                    await loop.sock_recv(listener, 16)
                    yield
            finally:
                path.unlink(missing_ok=True)
