"""Processes of this machine: told apart by boot id, pid and start time, never by the pid alone."""

import os
import select
import signal
from asyncio import Event, get_running_loop, sleep
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from subprocess import Popen

import psutil

from kapelle.adapters.system.cgroups import inside_of
from kapelle.core.agent import ProcessRef

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STORE_VARIABLE = "KAPELLE_STORE"
WORKSPACE_VARIABLE = "KAPELLE_WORKSPACE_ID"
TASK_VARIABLE = "KAPELLE_TASK"
ATTEMPT_VARIABLE = "KAPELLE_ATTEMPT"
STAT = 1 << 12
"""Bytes that are read of what the kernel says of a process: a line of at most fifty numbers and a short name."""
LOOK = 0.02
"""Seconds between looks at a process, where the system cannot tell of its end."""


@cache
def boot_id() -> str:
    """Return what names this boot of the machine, which it does for as long as any process lives."""
    with suppress(OSError):
        return BOOT_ID.read_text().strip()
    return f"boot-{psutil.boot_time():.0f}"


def _started(pid: int) -> tuple[str, bool] | None:
    """Return when *pid* was started and whether it is a zombie, or None when there is no such process."""
    # The kernel's own count of clock ticks where there is one: psutil turns it into a time of day, which moves when the
    # clock is set. It is asked for with every line that an agent says, and psutil takes ten times as long.
    with suppress(OSError):
        handle = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            facts = os.read(handle, STAT).rpartition(b")")[2].split()
        finally:
            os.close(handle)
        return facts[19].decode(), facts[0] == b"Z"
    try:
        process = psutil.Process(pid)
        return f"{process.create_time():.3f}", process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None


def reference(pid: int) -> ProcessRef | None:
    """Return the reference of the process *pid*, or None when there is none."""
    found = _started(pid)
    return None if found is None else ProcessRef(boot_id=boot_id(), pid=pid, started=found[0])


def me() -> ProcessRef:
    """Return the reference of this very process."""
    found = reference(os.getpid())
    if found is None:
        raise ProcessLookupError(os.getpid())
    return found


def exists(pid: int) -> bool:
    """Say whether there is a process *pid* just now, whosever it is, and whichever."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def alive(process: ProcessRef) -> bool:
    """Say whether *process* is still there: that very one, and not as a zombie."""
    if process.boot_id != boot_id():
        return False
    return _started(process.pid) == (process.started, False)


def signal_group(process: ProcessRef, number: signal.Signals) -> bool:
    """Send a signal to the process group of *process*; say whether there was anything to send it to."""
    if process.boot_id != boot_id():
        return False
    now = reference(process.pid)
    if now is not None and now != process:
        return False
    try:
        # What is left of a group whose leader was killed is no leader itself. With nothing there under this number, only the
        # group can still have it.
        group = process.pid if now is None else os.getpgid(process.pid)
        if group == os.getpgrp():
            return False
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    return True


def end_process(process: ProcessRef) -> None:
    """End *process* at once, if it is still that very one; for a leader that was stopped and keeps its lock."""
    if reference(process.pid) == process and process.boot_id == boot_id():
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def carrying(store_id: str, workspaces: Collection[str] | None = None, living: Collection[ProcessRef] = ()) -> list[ProcessRef]:
    """Return the live leaders of process groups that carry *store_id* in their environment, and those without a leader.

    With *workspaces*, only of those that carry one of them, too. None of *living* is among them, nor what is below one.
    """
    found: dict[int, ProcessRef] = {}
    above = {process.pid for process in living if alive(process)}
    wanted = None if workspaces is None else {_variable(WORKSPACE_VARIABLE, name) for name in workspaces}
    for pid, names in _environments(_variable(STORE_VARIABLE, store_id)):
        if pid == os.getpid() or (wanted is not None and wanted.isdisjoint(names)):
            continue
        try:
            group = os.getpgid(pid)
        except OSError:
            continue
        if group == os.getpgrp() or (above and not above.isdisjoint(_line(pid))):
            continue
        leader = reference(group) or reference(pid)
        if leader is not None:
            found[leader.pid] = leader
    return list(found.values())


def working_for(store_id: str, attempt_id: str) -> int:
    """Return how many live processes carry *store_id* and *attempt_id* in their environment."""
    wanted = _variable(ATTEMPT_VARIABLE, attempt_id)
    return sum(wanted in names for _, names in _environments(_variable(STORE_VARIABLE, store_id)))


def _line(pid: int) -> Generator[int]:
    """Give *pid*, and those of the processes above it, as far as they can be seen."""
    while pid > 0:
        yield pid
        pid = _parent(pid)


def _parent(pid: int) -> int:
    with suppress(OSError):
        handle = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            return int(os.read(handle, STAT).rpartition(b")")[2].split()[1])
        finally:
            os.close(handle)
    if BOOT_ID.exists():
        return 0
    with suppress(psutil.Error):
        return psutil.Process(pid).ppid()
    return 0


def agent_above(store_id: str) -> str | None:
    """Return the task whose agent of *store_id* this process, or one above it, was started for, or None when there is none.

    Of one that is in an agent's control group alone, the agent's id.

    What a process carries may be cleaned before it is started, but not what those above it carry; and what detaches itself from
    all of these is in the control group of its agent still, where there are such.
    """
    for names in _environments_above():
        if names.get(STORE_VARIABLE) == store_id and WORKSPACE_VARIABLE in names:
            return names.get(TASK_VARIABLE, "unknown")
    return inside_of(store_id)


def _environments_above() -> Generator[dict[str, str]]:
    """Give the environments of this process and of those above it, as far as they can be read."""
    yield dict(os.environ)
    with suppress(psutil.Error):
        for process in [psutil.Process(), *psutil.Process().parents()]:
            with suppress(psutil.Error, OSError):
                yield process.environ()


def _variable(name: str, value: str) -> bytes:
    return os.fsencode(f"{name}={value}")


def _environments(having: bytes) -> Generator[tuple[int, list[bytes]]]:
    """Give the processes of this machine that have *having* in their environment, by pid, with all that is in it."""
    if not BOOT_ID.exists():
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                names = [_variable(name, value) for name, value in process.environ().items()]
                if having in names:
                    yield process.pid, names
        return
    # From the kernel's own files: psutil takes four times as long, and a machine may have many hundreds of processes.
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:  # noqa: PTH208  # names are all that is needed
        try:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as stream:  # noqa: PTH123  # it is done for every process
                data = stream.readall()
        except OSError:
            # It is another's, or gone.
            continue
        if having in data and having in (names := data.split(b"\0")):
            yield pid, names


def exit_watch(pid: int) -> int | None:
    """Return a descriptor that becomes readable when *pid* ends, or None where the system has no such thing."""
    opener: Callable[[int], int] | None = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        return opener(pid)
    except OSError:
        return None


async def exit_of(child: Popen[bytes]) -> int:
    """Wait for the end of *child*, and return what it ended with."""
    watch = exit_watch(child.pid)
    if watch is None:
        while (code := child.poll()) is None:  # noqa: ASYNC110  # there is no event to wait for
            await sleep(LOOK)
        return code
    loop, ended = get_running_loop(), Event()
    loop.add_reader(watch, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(watch)
        os.close(watch)
    return child.wait()


def end_with_group(child: Popen[bytes]) -> None:
    """End *child* and everything in its process group, unless it has ended already."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextmanager
def exit_seen(process: ProcessRef, woken: Event) -> Generator[Callable[[], bool] | None]:
    """Set *woken* when *process* ends, and give a function that says whether it has ended; None where the system cannot."""
    watch = exit_watch(process.pid)
    if watch is None:
        yield None
        return
    loop = get_running_loop()
    try:
        # Looked at only now: another process that has got this number since would be watched in its place.
        if not alive(process):
            yield lambda: True
            return
        asked = select.poll()
        asked.register(watch, select.POLLIN)
        loop.add_reader(watch, woken.set)
        yield lambda: bool(asked.poll(0))
    finally:
        loop.remove_reader(watch)
        os.close(watch)
