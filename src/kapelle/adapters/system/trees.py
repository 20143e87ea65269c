"""What processes do, with all that they have started: by one look at all processes of this machine.

A process belongs to an agent when it is below what was started for it, or in its session still though its parent is gone.
"""

import os
import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress

import psutil

from kapelle.adapters.system.processes import BOOT_ID, STAT, alive
from kapelle.core.agent import ProcessRef
from kapelle.core.frozen import frozen
from kapelle.core.ports import Activity

STATES = {
    psutil.STATUS_STOPPED: b"T",
    psutil.STATUS_TRACING_STOP: b"t",
    psutil.STATUS_DISK_SLEEP: b"D",
    psutil.STATUS_ZOMBIE: b"Z",
    psutil.STATUS_DEAD: b"X",
}
"""The kernel's letters for what psutil says in words, where the kernel has no files to read."""
STOPPED, WAITING, ENDED = (b"T", b"t"), (b"D",), (b"Z", b"X")


@frozen
class Seen:
    """One process, as the kernel tells of it."""

    pid: int
    parent: int
    session: int
    state: bytes
    cpu: float
    memory: int


class Look:
    """One look at all processes of this machine."""

    def __init__(self) -> None:
        self._all = {seen.pid: seen for seen in _everything()}
        self._below: defaultdict[int, list[int]] = defaultdict(list)
        self._sessions: defaultdict[int, list[int]] = defaultdict(list)
        for seen in self._all.values():
            self._below[seen.parent].append(seen.pid)
            self._sessions[seen.session].append(seen.pid)

    def of(self, roots: Sequence[ProcessRef]) -> list[Seen]:
        """Return the processes that belong to *roots*, themselves too; none of those that have ended."""
        found: dict[int, Seen] = {}
        next_ones = [root.pid for root in roots if alive(root)]
        # What has lost its parent is in the session still that was made for the first of them.
        next_ones += [pid for root in next_ones for pid in self._sessions[root]]
        while next_ones:
            pid = next_ones.pop()
            if pid not in found and pid in self._all:
                found[pid] = self._all[pid]
                next_ones += self._below[pid]
        return [seen for seen in found.values() if seen.state not in ENDED]


def activities(agents: Sequence[Sequence[ProcessRef]]) -> list[Activity | None]:
    """Measure *agents*, each by the processes that it begins with."""
    look = Look()
    return [_activity(look.of(roots)) for roots in agents]


def _activity(tree: Sequence[Seen]) -> Activity | None:
    if not tree:
        return None
    return Activity(
        cpu=sum(seen.cpu for seen in tree),
        processes=len(tree),
        stopped=sum(seen.state in STOPPED for seen in tree),
        waiting=sum(seen.state in WAITING for seen in tree),
        memory=sum(seen.memory for seen in tree),
    )


def go_on(roots: Sequence[ProcessRef]) -> int:
    """Let everything of one agent go on that was stopped; return how many processes that were."""
    told = 0
    for seen in Look().of(roots):
        if seen.state in STOPPED:
            with suppress(OSError):
                os.kill(seen.pid, signal.SIGCONT)
                told += 1
    return told


def _everything() -> Iterator[Seen]:
    if not BOOT_ID.exists():
        yield from _by_psutil()
        return
    # From the kernel's own files: psutil takes ten times as long, and fifty agents are several hundred processes.
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    for name in os.listdir("/proc"):  # noqa: PTH208  # names are all that is needed
        if not name.isdigit():
            continue
        try:
            handle = os.open(f"/proc/{name}/stat", os.O_RDONLY)
            try:
                facts = os.read(handle, STAT).rpartition(b")")[2].split()
            finally:
                os.close(handle)
        except OSError:
            # It has ended meanwhile.
            continue
        # User and system time, of itself and of those of its children that have ended.
        ticks = sum(int(part) for part in facts[11:15])
        yield Seen(
            pid=int(name),
            parent=int(facts[1]),
            session=int(facts[3]),
            state=facts[0],
            cpu=ticks / tick,
            memory=int(facts[21]) * page,
        )


def _by_psutil() -> Iterator[Seen]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_info().rss
                state = STATES.get(process.status(), b"S")
                parent = process.ppid()
            # macOS tells no times of children that have ended.
            ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            yield Seen(
                pid=process.pid,
                parent=parent,
                session=os.getsid(process.pid),
                state=state,
                cpu=times.user + times.system + ended,
                memory=memory,
            )
