"""Real processes for the suites of hosts and sandboxes: small shell scripts, and a way to know that all of them are gone."""

import asyncio
import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from kapelle.core.agent import ProcessRef
from kapelle.core.frozen import frozen, replace
from kapelle.core.ports import Ended, Host, Launch

PATIENCE = 30
"""Seconds after which something that should have happened is given up. Nothing waits for it when all is well."""
SOON = timedelta(seconds=0.2)


@frozen
class Started:
    """A process that a test has started, and where its output is."""

    process: ProcessRef
    folder: str


class Lifeline:
    """A named pipe whose writing end a script holds open as number 9, with all that it starts.

    Its reading end comes to its end when the last of them is gone: a signal that needs no pid, which may be used again, and
    no waiting for a guessed time.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(path)
        self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    async def cut(self) -> str:
        """Return what was written to it, when nobody holds it any more."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(self._reading, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            async with asyncio.timeout(PATIENCE):
                return (await reader.read()).decode()
        finally:
            transport.close()


@dataclass(kw_only=True, slots=True)
class Stage:
    """Where the processes of one test play: what it starts is ended when the test is over."""

    host: Host
    folder: Path
    started: list[tuple[Host, Started]] = field(default_factory=list[tuple[Host, Started]])

    def launch(self, script: str, *arguments: str, **changes: Any) -> Launch:
        """Return how *script* is started by a shell, in an environment with nothing but a PATH."""
        launch = Launch(
            argv=("/bin/sh", "-c", script, "sh", *arguments), cwd=str(self.folder), env=(("PATH", "/usr/bin:/bin"),)
        )
        return replace(launch, **changes)

    async def start(self, script: str, *arguments: str, **changes: Any) -> Started:
        """Start *script*."""
        return await self.start_launch(self.launch(script, *arguments, **changes))

    async def start_launch(self, launch: Launch, folder: Path | None = None) -> Started:
        """Start *launch* in a folder of its own."""
        place = folder or self.folder / f"process-{len(self.started)}"
        process = await self.host.start(launch, str(place))
        found = Started(process=process, folder=str(place))
        self.started.append((self.host, found))
        return found

    def lifeline(self, name: str = "lifeline") -> Lifeline:
        """Return a new lifeline."""
        return Lifeline(self.folder / name)

    async def clear(self) -> None:
        """End whatever still runs."""
        for host, found in self.started:
            await host.end(found.process, found.folder, grace=timedelta(0))


async def read_until(host: Host, found: Started, wanted: bytes) -> bytes:
    """Return the output of a process as soon as it holds *wanted*."""
    data = b""
    async with asyncio.timeout(PATIENCE):
        while wanted not in data:
            await host.wait(found.process, found.folder, len(data))
            spool = await host.look(found.process, found.folder, len(data))
            data += spool.data
            assert spool.ended is None or wanted in data, f"it ended ({spool.ended}) and wrote only {data!r}"
    return data


async def read_to_end(host: Host, found: Started, *, offset: int = 0, piece: int = 1 << 20) -> tuple[bytes, Ended]:
    """Return the whole output of a process from *offset* on, and how it ended."""
    data = b""
    async with asyncio.timeout(PATIENCE):
        while True:
            spool = await host.look(found.process, found.folder, offset + len(data), piece)
            data += spool.data
            if spool.ended is not None:
                return data, spool.ended
            await host.wait(found.process, found.folder, offset + len(data))


def contents(folder: Path) -> list[str]:
    """Return what is in the files of *folder*."""
    return [path.read_text() for path in folder.iterdir() if path.is_file()]


def closed_to_others(path: str) -> bool:
    """Say whether only the owner may do anything with *path*."""
    return Path(path).stat().st_mode & 0o077 == 0
