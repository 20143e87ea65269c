"""Control groups of Linux: what holds the memory, the processors and the number of processes of everything that was started.

Where this process may make groups differs from machine to machine, so it is tried once, with a real child: version 2 where its
controllers can be had (as root, in a service or a scope that is delegated), version 1 beside or instead of it. A group of a
process lies at ``kapelle-STORE/KEY`` below the group that Kapelle itself is in, so whatever holds for Kapelle holds for it.

Every process gets a group of its own also when nothing is limited: what leaves its process group and throws away its
environment is still in it, and is ended with it.
"""

import asyncio
import os
import re
import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock

from kapelle.adapters.system import scopes
from kapelle.adapters.system.hierarchies import (
    CONTROLLERS,
    OWN,
    PREFIX,
    SECOND,
    Hierarchy,
    anywhere,
    make_group,
    mounted,
    safe,
    usable,
)
from kapelle.core.errors import HostFailed, NotStill
from kapelle.core.isolation import Limit, ProcessLimits, Remains

PERIOD = 100_000
"""Microseconds within which a share of the processors is given; the kernel's own default."""
LEAST_QUOTA = 1_000
"""Microseconds: the kernel takes no less."""
GONE = 10.0
"""Seconds that what was killed may take to go."""
PATIENCE = 5.0
"""Seconds that what is held still may take to stand still: what waits for a disk is tried again later, and all others go on."""
LOOK = 0.002
"""Seconds between looks whether it has gone: the kernel tells nobody who polls a file of version 1."""
FREEZE = "cgroup.freeze"
"""Of version 2 alone; what is frozen by version 1 could not be ended."""
_SETTLING = Lock()
_settled: list[bool] = []
_refusals: list[str] = []
"""Of this process: that it was asked for, and what was answered."""


class ControlGroups:
    """The groups of processes, in as many trees as it takes."""

    def __init__(self, hierarchies: Sequence[Hierarchy]) -> None:
        self.hierarchies = tuple(hierarchies)

    def holds(self) -> frozenset[Limit]:
        """Return which limits they can hold."""
        there = self.controllers()
        return frozenset(limit for limit, controller in CONTROLLERS.items() if controller in there)

    def controllers(self) -> frozenset[str]:
        """Return what they have to hold limits with."""
        return frozenset[str]().union(*(each.controllers for each in self.hierarchies))

    def make(self, store_id: str, key: str, limits: ProcessLimits) -> tuple[Path, ...]:
        """Make the groups of a process, with its limits, and return them: it is to write itself into ``cgroup.procs`` of each.

        Raises:
            HostFailed: they cannot be made.
        """
        groups: list[Path] = []
        wanted = {CONTROLLERS[limit] for limit in limits.given() if limit in CONTROLLERS}
        try:
            for index, hierarchy in enumerate(self.hierarchies):
                if index > 0 and not hierarchy.controllers & wanted:
                    continue
                group = hierarchy.group(store_id, key)
                try:
                    make_group(hierarchy, group, wanted & hierarchy.controllers)
                except FileNotFoundError:
                    # Another process has just cleared the last one of the store.
                    make_group(hierarchy, group, wanted & hierarchy.controllers)
                for name, value in _settings(hierarchy, limits):
                    (group / name).write_text(value)
                groups.append(group)
        except OSError as error:
            raise HostFailed(f"the limits cannot be set: {error.filename}: {error.strerror}") from error
        return tuple(groups)

    async def clear(self, store_id: str, key: str) -> Remains:
        """End what is left in the groups of a process, remove them, and say what they have to say.

        Raises:
            HostFailed: something in them cannot be ended.
        """
        groups = self._there(store_id, key)
        if not groups:
            return Remains()
        said = _said(groups)
        for group in groups:
            await _remove(group)
            with suppress(OSError):
                # The store's, when this was the last in it; it is made again with the next.
                group.parent.rmdir()
        return said

    def met(self, store_id: str, key: str) -> Remains:
        """Return what the groups of a process have to say so far."""
        return _said(self._there(store_id, key))

    async def sweep(self, store_id: str, keep: Collection[str]) -> list[str]:
        """Do the same for all processes of a store but *keep*; return the keys of those that were found.

        Raises:
            HostFailed: something in them cannot be ended.
        """
        found = list(self._of_nobody(store_id, keep))
        for group in found:
            await _remove(group)
        for folder in self._stores(store_id):
            with suppress(OSError):
                # It goes when nothing is in it any more; it is made again when something is.
                folder.rmdir()
        return sorted({group.name for group in found})

    def leftovers(self, store_id: str, keep: Collection[str]) -> list[str]:
        """Return the keys of all processes of a store but *keep* that there are groups of."""
        return sorted({group.name for group in self._of_nobody(store_id, keep)})

    def _of_nobody(self, store_id: str, keep: Collection[str]) -> Iterator[Path]:
        kept = {safe(key) for key in keep}
        for folder in self._stores(store_id):
            yield from (group for group in _children(folder) if group.name not in kept)

    def _stores(self, store_id: str) -> list[Path]:
        """Return the groups that those of a store's processes are in: its own, and whoever's."""
        own = [each.folder / f"{PREFIX}{store_id}" for each in self.hierarchies]
        return list(dict.fromkeys((*(folder for folder in own if folder.is_dir()), *anywhere(store_id))))

    def _there(self, store_id: str, key: str) -> list[Path]:
        """Return the groups of a process, wherever whoever started it could make them."""
        own = [group for each in self.hierarchies if (group := each.group(store_id, key)).is_dir()]
        return own or [group for folder in anywhere(store_id) if (group := folder / safe(key)).is_dir()]

    def inside(self, store_id: str, keys: Collection[str]) -> list[int]:
        """Return all processes in the groups of *keys*."""
        # The first has everybody in it.
        return [pid for key in keys for group in self._there(store_id, key)[:1] for pid in _members(group)]

    async def freeze(self, store_id: str, key: str) -> bool:
        """Hold the processes of *key* still, all at once; False where groups cannot (version 1), or there is none.

        Raises:
            NotStill: some do not stand still in time; all are let go again.
            HostFailed: they cannot be told to.
        """
        group = self._freezing(store_id, key)
        if group is None:
            return False
        try:
            (group / FREEZE).write_text("1")
            async with asyncio.timeout(PATIENCE):
                while group.exists() and not counted(group, "frozen", ("cgroup.events",)):  # noqa: ASYNC110  # see LOOK
                    await asyncio.sleep(LOOK)
        except FileNotFoundError:
            return True
        except TimeoutError:
            with suppress(OSError):
                (group / FREEZE).write_text("0")
            raise NotStill(f"what runs in {group} does not stand still") from None
        except OSError as error:
            raise HostFailed(f"what runs in {group} cannot be held still: {error.strerror}") from error
        return True

    def thaw(self, store_id: str, key: str) -> bool:
        """Let them go on; False where groups cannot.

        Raises:
            HostFailed: they cannot be told to.
        """
        group = self._freezing(store_id, key)
        if group is None:
            return False
        try:
            (group / FREEZE).write_text("0")
        except FileNotFoundError:
            return True
        except OSError as error:
            raise HostFailed(f"what is held still in {group} cannot be let go: {error.strerror}") from error
        return True

    def _freezing(self, store_id: str, key: str) -> Path | None:
        return next((group for group in self._there(store_id, key) if (group / FREEZE).exists()), None)

    def members(self, store_id: str, key: str) -> Path | None:
        """Return the file that names the processes in the group of a process, or None where there are no groups."""
        return next((each.group(store_id, key) / "cgroup.procs" for each in self.hierarchies), None)


@cache
def here() -> ControlGroups:
    """Return the groups of this machine: one tree for each controller, and one in any case if there is any."""
    wanted = set(CONTROLLERS.values())
    found = [each for each in mounted() if (each.version != 1 or each.controllers & wanted) and usable(each)]
    second = next((each for each in found if each.version == SECOND), None)
    if second is not None and second.controllers >= wanted:
        return ControlGroups((second,))
    return ControlGroups((*([second] if second is not None else []), *(each for each in found if each.version == 1)))


async def settled() -> ControlGroups:
    """Return the groups that what is started here goes into; the first time this process goes where it can make some."""
    await asyncio.to_thread(_settle)
    return here()


def promised() -> frozenset[Limit] | None:
    """Return which limits groups will hold when something is started here, or None when there will be none.

    Nothing is asked of anybody: it is for who only looks.
    """
    groups, offer = here(), _offer()
    if offer is None:
        return groups.holds() if groups.hierarchies else None
    return groups.holds() | {limit for limit, name in CONTROLLERS.items() if name in offer.controllers}


def by() -> str:
    """Return where the groups are, or will be when something is started, in words for people; empty when there will be none."""
    offer = _offer()
    if offer is not None:
        return offer.words
    versions = sorted({str(each.version) for each in here().hierarchies})
    return f"control groups of version {' and '.join(versions)}" if versions else ""


def refused() -> str:
    """Return why there are not the groups that were promised; empty when there are, or were not asked for."""
    return "; ".join(_refusals)


def _offer() -> scopes.Offer | None:
    """Return where this process will go when something is started: where it can hold more, or is in nobody's way."""
    groups = here()
    if _settled:
        return None
    folders = [each.folder for each in groups.hierarchies]
    more = (
        each for each in scopes.offers() if not folders or each.controllers - groups.controllers() or each.instead_of(folders)
    )
    return next(more, None)


def _settle() -> None:
    with _SETTLING:
        if _settled:
            return
        offer = _offer()
        if offer is not None:
            if problem := offer.take():
                _refusals.append(problem)
            here.cache_clear()
        _settled.append(True)


def inside_of(store_id: str) -> str | None:
    """Return the key of the process of a store in whose group this process is, or None when it is in none."""
    with suppress(OSError):
        for line in OWN.read_text().splitlines():
            if found := re.search(rf"/{PREFIX}{re.escape(store_id)}/([^/]+)", line):
                return found[1]
    return None


# --- Limits, and what becomes of them ---


def _settings(hierarchy: Hierarchy, limits: ProcessLimits) -> Iterator[tuple[str, str]]:
    """Yield the files of a group that hold *limits*, with what is to be in them."""
    second = hierarchy.version != 1
    if limits.memory is not None and "memory" in hierarchy.controllers:
        yield ("memory.max" if second else "memory.limit_in_bytes"), str(limits.memory)
        if second:
            yield "memory.swap.max", "0"
        elif (hierarchy.folder / "memory.memsw.limit_in_bytes").exists():
            yield "memory.memsw.limit_in_bytes", str(limits.memory)
    if limits.pids is not None and "pids" in hierarchy.controllers:
        yield "pids.max", str(limits.pids)
    if limits.cpus is not None and "cpu" in hierarchy.controllers:
        quota = max(round(limits.cpus * PERIOD), LEAST_QUOTA)
        if second:
            yield "cpu.max", f"{quota} {PERIOD}"
        else:
            yield "cpu.cfs_period_us", str(PERIOD)
            yield "cpu.cfs_quota_us", str(quota)


def counted(group: Path, name: str, files: Collection[str] = ("memory.events", "memory.oom_control")) -> int:
    """Return how often something happened in a group, as its files count it."""
    for file in files:
        with suppress(OSError, ValueError):
            for line in (group / file).read_text().splitlines():
                what, _, count = line.partition(" ")
                if what == name:
                    return int(count)
    return 0


def _members(group: Path) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        found += [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    for child in _children(group):
        found += _members(child)
    return found


def _children(group: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from (child for child in group.iterdir() if child.is_dir())


def _kill(group: Path) -> bool:
    """Kill everything in a group; say whether there was anything."""
    there = _members(group)
    if there:
        with suppress(OSError):
            (group / "cgroup.kill").write_text("1")
            return True
        for pid in there:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    return bool(there)


def _said(groups: Collection[Path]) -> Remains:
    return Remains(
        out_of_memory=any(counted(group, "oom_kill") for group in groups),
        full=Limit.PIDS if any(counted(group, "max", ("pids.events",)) for group in groups) else None,
    )


async def _remove(group: Path) -> None:
    try:
        async with asyncio.timeout(GONE):
            # One that is being started may come to it while the others go.
            while _kill(group) or not _removed(group):  # noqa: ASYNC110  # see LOOK
                await asyncio.sleep(LOOK)
    except TimeoutError:
        raise HostFailed(
            f"{len(_members(group))} processes in {group} cannot be ended",
            remedy="See what they wait for (a disk, a network file system): they end when that answers.",
        ) from None


def _removed(group: Path) -> bool:
    for child in list(_children(group)):
        if not _removed(child):
            return False
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
