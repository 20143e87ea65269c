"""The guard: looks on from outside while a process runs, and ends all of it when it has more than it may.

It holds what the kernel of the machine does not: room on the disk everywhere, memory and the number of processes where there
are no control groups. It is a program of its own so that it holds with nobody watching, and uses the standard library alone, so
that it is small and there at once (psutil only where there is no ``/proc``).

What is on the disk is looked at in full when the file system has become fuller by a part of the limit, and now and then anyway;
files that are open and have no name any more count, too.
"""

import argparse
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SHORT = 0.25
"""Seconds between two looks at what is cheap to look at."""
LONG = 10.0
"""Seconds after which everything is looked at in any case."""
SHARE = 20
"""A look takes at most one part in so many of the time, and is taken when so small a part of the limit may have been filled."""
LONGEST = 1_000
"""Letters of a path within an open directory: nobody hides files where paths end, at 4,096 bytes."""
BLOCK = 512
"""Bytes: the unit of ``st_blocks``."""


def main() -> None:
    """Watch until the process ends, or has too much."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--over", required=True, help="the file that says which limit was passed")
    parser.add_argument("--members", help="the file that names the processes in its group")
    parser.add_argument("--first", help="without such a group: the file that names the process that all of them are below")
    parser.add_argument("--disk", type=int)
    parser.add_argument("--memory", type=int)
    parser.add_argument("--pids", type=int)
    parser.add_argument("--folder", action="append", default=[])
    parser.add_argument("--shared", action="append", default=[], help="a directory of which only what is added counts")
    parser.add_argument("pid", type=int)
    asked = parser.parse_args()
    watch = _Watch(asked.pid, asked.members, asked.first)
    disk = _Disk(asked.folder, asked.shared, asked.disk) if asked.disk is not None else None
    while not watch.ended_within(SHORT if disk is None else disk.rest):
        pids = watch.processes()
        which = ""
        if disk is not None and disk.over(pids):
            which = "disk"
        elif asked.pids is not None and len(pids) > asked.pids:
            which = "pids"
        elif asked.memory is not None and _taken(pids, asked.memory) > asked.memory:
            which = "memory"
        if which:
            # Whole or not at all: somebody may look, or end this, at any moment.
            fresh = Path(f"{asked.over}.new")
            fresh.write_text(which)
            fresh.replace(asked.over)
            watch.end()
            return


class _Watch:
    """The process, and all that it has started."""

    def __init__(self, pid: int, members: str | None, first: str | None) -> None:
        self._pid = pid
        self._members = None if members is None else Path(members)
        self._first = None if first is None else Path(first)
        self._handle = _handle(pid)

    def ended_within(self, seconds: float) -> bool:
        """Say whether the process has ended, now or within *seconds*."""
        if self._handle is not None:
            return bool(select.select([self._handle], [], [], seconds)[0])
        time.sleep(seconds)
        return not _exists(self._pid)

    def processes(self) -> list[int]:
        if self._members is not None:
            with suppress(OSError, ValueError):
                return [int(pid) for pid in self._members.read_text().split()]
        if self._first is not None:
            with suppress(OSError, ValueError):
                first = int(self._first.read_text())
                return [first, *_below(first, _table())]
        return _family(self._pid)

    def end(self) -> None:
        """End all of it."""
        for pid in (*self.processes(), self._pid):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _handle(pid: int) -> int | None:
    """Return a descriptor that becomes readable when the process ends, where the system has such a thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


class _Disk:
    """What is in some directories."""

    def __init__(self, own: list[str], shared: list[str], limit: int) -> None:
        self._folders = [*own, *shared]
        self._limit = limit
        self._before = sum(dict(file for folder in shared for file in _files(folder)).values())
        self._looked_at = 0.0
        self._used = -1
        self.rest = SHORT
        """Seconds until the next look."""

    def over(self, pids: list[int]) -> bool:
        """Say whether there is more in them than there may be."""
        used = self._used_of_file_systems()
        begun = time.monotonic()
        if used - self._used < self._limit // SHARE and begun - self._looked_at < LONG:
            return False
        size = sum(dict(file for folder in self._folders for file in _files(folder)).values())
        size += sum(dict(file for pid in pids for file in _nameless(pid)).values())
        self._looked_at, self._used = time.monotonic(), used
        self.rest = max(SHORT, SHARE * (self._looked_at - begun))
        return size - self._before > self._limit

    def _used_of_file_systems(self) -> int:
        found: dict[int, int] = {}
        for folder in self._folders:
            with suppress(OSError):
                facts = os.statvfs(folder)
                found[os.stat(folder).st_dev] = (facts.f_blocks - facts.f_bfree) * facts.f_frsize  # noqa: PTH116
        return sum(found.values())


def _files(folder: str) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield what is in a directory, each file by its number, with the bytes that it takes."""
    todo: list[tuple[_Open, str]] = []
    with suppress(OSError):
        todo.append((_Open(folder, None), "."))
    while todo:
        base, within = todo.pop()
        with suppress(OSError):
            here = _Open(within, base.handle)
            with os.scandir(here.handle) as entries:
                for entry in entries:
                    try:
                        facts = entry.stat(follow_symlinks=False)
                    except OSError:
                        # It has gone meanwhile.
                        continue
                    yield (facts.st_dev, facts.st_ino), facts.st_blocks * BLOCK
                    if stat.S_ISDIR(facts.st_mode):
                        below = f"{within}/{entry.name}"
                        todo.append((base, below) if len(below) < LONGEST else (here, entry.name))


class _Open:
    """An open directory; it is closed when nothing below it is to be looked at any more."""

    def __init__(self, name: str, within: int | None) -> None:
        self.handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


def _nameless(pid: int) -> Iterator[tuple[tuple[int, int], int]]:
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with suppress(OSError):
                facts = entry.stat()
                if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0:
                    yield (facts.st_dev, facts.st_ino), facts.st_blocks * BLOCK


def _family(pid: int) -> list[int]:
    """Return a process, all that it started, and what of that has lost its parent and is of its session still."""
    if sys.platform != "linux":
        import psutil

        with suppress(psutil.Error):
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        return []
    table = _table()
    if pid not in table:
        return []
    shim, session = table[pid]
    mine = {pid, *_below(pid, table)}
    # The shim's watchdog and this guard are of the session, too.
    aside = {shim, *_below(shim, table)} - mine
    return [*mine, *(each for each, facts in table.items() if facts[1] == session and each not in aside and each not in mine)]


def _table() -> dict[int, tuple[int, int]]:
    """Return the parent and the session of every process."""
    return {int(name): facts for name in os.listdir("/proc") if name.isdigit() and (facts := _facts(int(name)))}  # noqa: PTH208


def _below(pid: int, table: dict[int, tuple[int, int]]) -> set[int]:
    found: set[int] = set()
    todo = {pid}
    while todo:
        todo = {each for each, (parent, _) in table.items() if parent in todo and each not in found}
        found |= todo
    return found


def _facts(pid: int) -> tuple[int, int] | None:
    """Return the parent and the session of a process."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[1]), int(fields[3])
    return None


def _taken(pids: list[int], most: int) -> int:
    """Return the memory of some processes; it is more than *most* only if it is so with what they share counted once."""
    taken = sum(map(_resident, pids))
    # The other way is exact, and slow: the kernel goes through every page.
    return taken if taken <= most else sum(map(_share, pids))


def _share(pid: int) -> int:
    """Return the memory of a process, of what it shares its part; all of that where the system tells no parts."""
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return _resident(pid)


def _resident(pid: int) -> int:
    """Return the memory of a process; what it shares counts for each that has it."""
    if sys.platform != "linux":
        import psutil

        with suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
        return 0
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
