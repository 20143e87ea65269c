"""This machine as a host: processes in groups of their own, output in spools, exit codes recorded by a shim."""

import asyncio
import fcntl
import hashlib
import math
import os
import resource
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from kapelle.adapters.hosts.filtering import filtered
from kapelle.adapters.hosts.shim import SHIM
from kapelle.adapters.system import processes, trees
from kapelle.adapters.system.files import soft_limit
from kapelle.adapters.system.growth import Growth
from kapelle.adapters.system.measuring import measure
from kapelle.core.agent import ProcessRef
from kapelle.core.errors import HostFailed
from kapelle.core.ids import AttemptId, WorkspaceId
from kapelle.core.ports import Activity, CommandResult, Ended, Launch, Measure, Spool
from kapelle.core.shapes import shapes_in, without_shapes

GROWTH = 0.03
"""Seconds between looks at a spool that is waited for, where the system does not tell when it grows: short for a person, long
for a processor."""
PIPE_SIZE = 1 << 18
TAIL = 16_000
LIMIT, LIMIT_SINCE = "limit", "limit-since"
"""Files for the shim of a process that was started without a time limit: the one that it was given then, and when."""
CLOCK_STOPPED, CLOCK_MORE = "clock-stopped", "clock-more"
"""Files for the shim: since when its clock stands still, by the machine's own count, which nobody sets; seconds more."""
GONE = 0.02
"""Seconds between looks at a process that is being ended, where the system does not tell when it has."""
KILLED = 10.0
"""Seconds that a process may take to end when it is killed."""


class LocalHost:
    """See ``core.ports.Host``."""

    def __init__(self, name: str = "local") -> None:
        self.name = name
        self._inputs: dict[ProcessRef, int] = {}
        self._children: dict[ProcessRef, subprocess.Popen[bytes]] = {}
        self._growth = Growth()

    async def measure(self, path: str = "") -> Measure:
        return measure(path=path)

    async def activities(self, processes: Sequence[Sequence[ProcessRef]]) -> Sequence[Activity | None]:
        return await asyncio.to_thread(trees.activities, processes)

    async def go_on(self, processes: Sequence[ProcessRef]) -> int:
        return await asyncio.to_thread(trees.go_on, processes)

    async def start(self, launch: Launch, folder: str) -> ProcessRef:
        _check(launch)
        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("exit", "timed-out", LIMIT, LIMIT_SINCE, CLOCK_STOPPED, CLOCK_MORE):
                (place / name).unlink(missing_ok=True)
            for name, content in launch.files:
                _write_private(place / name, content)
            return self._spawn(launch, place)
        except OSError as error:
            raise HostFailed(f"{launch.argv[0]} cannot be started: {error.strerror or error}") from error

    def _spawn(self, launch: Launch, place: Path) -> ProcessRef:
        with (place / "spool").open("ab") as spool, (place / "stderr").open("ab") as stderr:
            stdin = subprocess.PIPE if launch.stdin else subprocess.DEVNULL
            child = _popen(launch, place, stdin=stdin, stdout=spool, stderr=stderr)
        found = processes.reference(child.pid)
        if found is None:
            raise HostFailed(f"{launch.argv[0]} ended before it could be looked at")
        self._children[found] = child
        if child.stdin is not None:
            handle = os.dup(child.stdin.fileno())
            child.stdin.close()
            os.set_blocking(handle, False)
            with suppress(OSError, AttributeError):
                fcntl.fcntl(handle, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            self._inputs[found] = handle
        return found

    async def look(self, process: ProcessRef, folder: str, offset: int, limit: int = 1 << 20) -> Spool:
        # Asked before reading: what was written before the end is then surely read.
        gone = not self._alive(process)
        if gone:
            # Whoever ended it by force may have left the rest of its group at work, with nobody to look after it.
            processes.signal_group(process, signal.SIGKILL)
        data = _read(Path(folder) / "spool", offset, limit)
        if not gone or len(data) == limit:
            return Spool(data=data, ended=None)
        return Spool(data=data, ended=self._ended(process, Path(folder)))

    async def wait(self, process: ProcessRef, folder: str, offset: int) -> None:
        spool = Path(folder) / "spool"
        woken = asyncio.Event()
        with processes.exit_seen(process, woken) as ended, self._growth.watched(spool, woken) as told:
            gone = ended or (lambda: not self._alive(process))
            while _size(spool) <= offset and not gone():
                if ended is None or not told:
                    await _rest(GROWTH)
                    continue
                await woken.wait()
                woken.clear()

    async def write(self, process: ProcessRef, data: bytes) -> bool:
        handle = self._inputs.get(process)
        if handle is None or not self._alive(process):
            return False
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[os.write(handle, rest) :]
                except BlockingIOError:
                    if not self._alive(process):
                        return False
                    await _rest(GROWTH)
                    if self._inputs.get(process) != handle:
                        # It was closed meanwhile, and its number may be another's by now.
                        return False
        except OSError:
            # The reader is gone; whatever part it got died with it.
            return False
        return True

    async def bound(self, process: ProcessRef, folder: str, limit: timedelta) -> None:
        first, since = Path(folder) / LIMIT, Path(folder) / LIMIT_SINCE
        try:
            begun = _number(since)
            if begun is not None and first.exists():
                # The shim sleeps by the first one already, and what is more than that after it.
                more = time.monotonic() - begun + float(_seconds(limit)) - float(first.read_text(encoding="ascii"))
                _write_whole(Path(folder) / CLOCK_MORE, f"{max(math.ceil(more), 0)}\n")
                return
            _write_whole(since, f"{time.monotonic():.0f}\n")
            _write_whole(first, f"{_seconds(limit)}\n")
        except OSError as error:
            raise HostFailed(f"the time limit of process {process.pid} cannot be set: {error.strerror or error}") from error

    async def close_input(self, process: ProcessRef) -> None:
        handle = self._inputs.pop(process, None)
        if handle is not None:
            os.close(handle)

    async def end(self, process: ProcessRef, folder: str, *, grace: timedelta) -> Ended:
        await self.close_input(process)
        patience = grace.total_seconds()
        # First it may end by itself, since its input is closed; then it is asked; then it is made to.
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                processes.signal_group(process, number)
            if await self._gone_within(process, patience if number is not signal.SIGKILL else KILLED):
                break
        # Children that the leader of the group did not take with it.
        processes.signal_group(process, signal.SIGKILL)
        return self._ended(process, Path(folder))

    async def stop_clock(self, folder: str) -> None:
        stopped = Path(folder) / CLOCK_STOPPED
        if not stopped.exists():
            _write_whole(stopped, f"{time.monotonic():.0f}\n")

    async def start_clock(self, folder: str) -> None:
        stopped, more = Path(folder) / CLOCK_STOPPED, Path(folder) / CLOCK_MORE
        since = _number(stopped)
        if since is not None:
            # In this order: when it is broken off in between, the process has too much time and never too little.
            _write_whole(more, f"{(_number(more) or 0) + max(math.ceil(time.monotonic() - since), 0)}\n")
            stopped.unlink()

    async def run(self, launch: Launch, output_path: str, on_output: Callable[[str], None] | None = None) -> CommandResult:
        _check(launch)
        output = Path(output_path)
        folder = output.with_name(f"{output.name}.d")
        begun = time.monotonic()
        try:
            output.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True, mode=0o700)
            for name in ("exit", "timed-out"):
                (folder / name).unlink(missing_ok=True)
            with output.open("wb") as stream:
                # Not by asyncio: broken off while it starts something, it ends that alone and none of its children.
                child = _popen(launch, folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        except OSError as error:
            raise HostFailed(f"{launch.argv[0]} cannot be started: {error.strerror or error}") from error
        try:
            await processes.exit_of(child)
        finally:
            processes.end_with_group(child)
        seconds = time.monotonic() - begun
        code, timed_out = _recorded(folder)
        for leaf in folder.iterdir():
            leaf.unlink()
        folder.rmdir()
        digest, tail = await asyncio.to_thread(_read_log, output)
        if on_output is not None:
            on_output(tail)
        return CommandResult(
            exit_code=None if timed_out else code,
            timed_out=timed_out,
            seconds=seconds,
            output_path=output_path,
            output_hash=digest,
            tail=tail,
        )

    async def leftovers(
        self, store_id: str, workspaces: Collection[WorkspaceId] | None = None, *, living: Collection[ProcessRef] = ()
    ) -> Sequence[ProcessRef]:
        return await asyncio.to_thread(processes.carrying, store_id, workspaces, living)

    async def at_work_for(self, store_id: str, attempt_id: AttemptId) -> int:
        return await asyncio.to_thread(processes.working_for, store_id, attempt_id)

    async def _gone_within(self, process: ProcessRef, seconds: float) -> bool:
        """Wait for the end of *process*, at most so long; say whether it has ended."""
        woken = asyncio.Event()
        with suppress(TimeoutError), processes.exit_seen(process, woken) as ended:
            async with asyncio.timeout(seconds):
                while ended is None and self._alive(process):
                    await _rest(GONE)
                while ended is not None and not ended():
                    await woken.wait()
                    woken.clear()
        return not self._alive(process)

    def _alive(self, process: ProcessRef) -> bool:
        if processes.alive(process):
            return True
        child = self._children.pop(process, None)
        if child is not None:
            # It has ended, and stays in the process table until it is waited for.
            child.wait()
        return False

    def _ended(self, process: ProcessRef, folder: Path) -> Ended:
        handle = self._inputs.pop(process, None)
        if handle is not None:
            os.close(handle)
        code, timed_out = _recorded(folder)
        return Ended(exit_code=code, timed_out=timed_out)


def _popen(launch: Launch, folder: Path, *, stdin: int, stdout: BinaryIO, stderr: BinaryIO) -> subprocess.Popen[bytes]:
    limit = "later" if launch.limit is None else _seconds(launch.limit)
    held = ("\n".join(launch.groups), _open_files(launch), _blocks(launch), shlex.join(launch.guard))
    argv = filtered(launch.argv, launch.hide) if launch.hide else launch.argv
    return subprocess.Popen(
        ["/bin/sh", "-c", SHIM, "kapelle-shim", str(folder), limit, *held, *argv],
        cwd=launch.cwd,
        env=dict(launch.env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def _seconds(limit: timedelta) -> str:
    return f"{max(limit.total_seconds(), 0.1):.3f}"


def _open_files(launch: Launch) -> str:
    """Return how many open files the shim is to let the program have; ``S`` for a soft limit, which it may raise."""
    if launch.open_files is None:
        # Not what whoever leads has raised its own to: some programs look at each of them.
        soft = soft_limit()
        return "" if soft is None else f"S{soft}"
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Nobody may raise their own hard limit but root; fewer are no more than was asked for.
    return str(launch.open_files if most == resource.RLIM_INFINITY else min(launch.open_files, most))


def _blocks(launch: Launch) -> str:
    # POSIX counts the size of files in blocks of 512 bytes (ulimit -f).
    return "" if launch.file_size is None else str(max(launch.file_size // 512, 1))


def _check(launch: Launch) -> None:
    """See whether *launch* can be started: the shim could only say so where nobody looks.

    Raises:
        HostFailed: it cannot.
    """
    program, path = launch.argv[0], dict(launch.env).get("PATH", os.defpath)
    if not Path(launch.cwd).is_dir():
        raise HostFailed(f"{program} cannot be started: the directory {launch.cwd} is gone")
    if shutil.which(str(Path(launch.cwd) / program) if os.sep in program else program, path=path) is None:
        raise HostFailed(f"{program} cannot be started: it is not there, or may not be executed")


def _recorded(folder: Path) -> tuple[int | None, bool]:
    timed_out = (folder / "timed-out").exists()
    try:
        return int((folder / "exit").read_text()), timed_out
    except (OSError, ValueError):
        return None, timed_out


def _write_whole(path: Path, content: str) -> None:
    """Write a file that others find whole or not at all.

    Raises:
        HostFailed: it cannot be written.
    """
    try:
        path.with_name(f"{path.name}.new").write_text(content, encoding="ascii")
        path.with_name(f"{path.name}.new").replace(path)
    except OSError as error:
        raise HostFailed(f"{path} cannot be written: {error.strerror}") from error


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _write_private(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(content)


def _read(path: Path, offset: int, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(limit)
    except FileNotFoundError:
        return b""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_log(path: Path) -> tuple[str, str]:
    """Cut what looks like a credential out of the log at *path*; return the digest of what is in it then, and its end."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        some = any(shapes_in(line) for line in stream)
    if some:
        clean = path.with_name(f"{path.name}.new")
        text = path.read_bytes().decode(errors="surrogateescape")
        clean.write_bytes(without_shapes(text).encode(errors="surrogateescape"))
        clean.replace(path)
    return _digest(path)


def _digest(path: Path) -> tuple[str, str]:
    whole = hashlib.sha256()
    tail = b""
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            whole.update(part)
            tail = (tail + part)[-4 * TAIL :]
    return whole.hexdigest(), tail.decode(errors="replace")[-TAIL:]


async def _rest(seconds: float) -> None:
    # The system gives no portable sign that a file has grown.
    await asyncio.sleep(seconds)
