"""Holding limits: what every sandbox that starts processes on this machine has in common."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from kapelle.adapters.sandboxes.surroundings import temporary
from kapelle.adapters.system import cgroups, stopping
from kapelle.adapters.system.processes import alive, reference
from kapelle.core.agent import ProcessRef
from kapelle.core.errors import HostFailed
from kapelle.core.frozen import replace
from kapelle.core.isolation import Limit, MountKind, Place, Remains
from kapelle.core.ports import Launch

GUARD = Path(__file__).with_name("guard.py")
OVER = "over"
"""The file in a place's folder that says which limit the guard has ended it for."""
POLLED = frozenset({Limit.MEMORY, Limit.PIDS})
"""What the guard can hold where there are no control groups."""
GUARDING = "a guard that looks from outside"
"""What then holds it, in words for people."""


class Holding:
    """Limits of processes, by control groups where this machine has them (and *groups* says so), otherwise by a guard.

    *members* says where a file is, or will be, that names the processes at a place, when they are in groups of somebody else's;
    *first*, where there may be one that names the process that all of them are below.
    """

    def __init__(
        self,
        *,
        groups: bool = True,
        members: Callable[[Place], Path] | None = None,
        first: Callable[[Place], Path] | None = None,
    ) -> None:
        self._wanted = groups
        self._members, self._first = members, first

    @property
    def groups(self) -> bool:
        """Whether everything that is started will be in a control group, and so can be ended with nothing left."""
        return self._wanted and cgroups.promised() is not None

    def holds(self) -> frozenset[Limit]:
        """Return which limits can be held on this machine."""
        return self._by_groups() | POLLED | {Limit.DISK, Limit.FILES}

    @property
    def by(self) -> str:
        """What holds the limits of memory, processors and processes on this machine, in words for people."""
        groups = cgroups.by() if self._wanted else ""
        return " and ".join(filter(None, (groups, "" if groups and self._by_groups() >= POLLED else GUARDING)))

    async def held(self, launch: Launch, place: Place) -> Launch:
        """Return *launch* with the limits of *place*.

        Raises:
            HostFailed: they cannot be set.
        """
        limits = place.isolation.limits
        those = await cgroups.settled() if self._wanted else None
        if missing := sorted({limit.value for limit in limits.given()} - self.holds()):
            why = cgroups.refused() or "no control groups can be made here"
            raise HostFailed(
                f"limits of {' and '.join(missing)} cannot be held: {why}", remedy="Leave them out, or see `kapelle doctor`."
            )
        groups = those.make(place.store_id, place.key, limits) if those is not None else ()
        (Path(place.folder) / OVER).unlink(missing_ok=True)
        return replace(
            launch,
            groups=tuple(str(group / "cgroup.procs") for group in groups),
            open_files=limits.files,
            file_size=limits.disk,
            guard=tuple(self._guard(place)),
        )

    async def cleared(self, place: Place) -> Remains:
        """End what is left of what was started at *place*, and say what is to be said of it.

        Raises:
            HostFailed: something cannot be ended.
        """
        remains = _with_guards(await cgroups.here().clear(place.store_id, place.key) if self._wanted else Remains(), place)
        (Path(place.folder) / OVER).unlink(missing_ok=True)
        return remains

    def met(self, place: Place) -> Remains:
        """Return what is to be said so far."""
        return _with_guards(cgroups.here().met(place.store_id, place.key) if self._wanted else Remains(), place)

    async def swept(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        """Do so for everything of a store but *keep*.

        Raises:
            HostFailed: something cannot be ended.
        """
        return await cgroups.here().sweep(store_id, keep) if self._wanted else ()

    def leftovers(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        """Return what ``swept`` would find."""
        return cgroups.here().leftovers(store_id, keep) if self._wanted else ()

    async def freeze(self, place: Place, process: ProcessRef | None) -> None:
        """Hold still what runs at *place*: by its group, or one process after the other where groups cannot.

        Raises:
            HostFailed: something cannot be held still.
        """
        if self._wanted and await cgroups.here().freeze(place.store_id, place.key):
            return
        await stopping.stop(lambda: self._there(place, process))

    async def thaw(self, place: Place, process: ProcessRef | None) -> None:
        """Let it go on.

        Raises:
            HostFailed: it cannot be told to.
        """
        if not (self._wanted and cgroups.here().thaw(place.store_id, place.key)):
            stopping.go_on(self._there(place, process))

    def _there(self, place: Place, process: ProcessRef | None) -> list[int]:
        found = cgroups.here().inside(place.store_id, [place.key]) if self._wanted else []
        if found or self.groups:
            return found
        return [] if process is None or not alive(process) else stopping.started_by(process.pid)

    def inside(self, store_id: str, keys: Collection[str]) -> Sequence[ProcessRef]:
        """Return all live processes of *keys*, as far as groups tell."""
        pids = cgroups.here().inside(store_id, keys) if self._wanted else ()
        return [found for pid in pids if (found := reference(pid)) is not None]

    def _by_groups(self) -> frozenset[Limit]:
        return (cgroups.promised() if self._wanted else None) or frozenset()

    def _guard(self, place: Place) -> Iterator[str]:
        """Yield the command of the guard, or nothing where there is nothing to guard."""
        limits = place.isolation.limits
        watched: list[str] = []
        if limits.disk is not None:
            watched += [f"--disk={limits.disk}"]
            # Everything that it alone may write, wherever that is; what a person lets it write was theirs before.
            own = [mount.source or mount.path for mount in place.mounts if mount.kind is MountKind.WRITE]
            watched += [f"--folder={folder}" for folder in (place.workspace, place.home, temporary(place), *own)]
            shared = [mount.path for mount in place.isolation.mounts if mount.kind is MountKind.WRITE]
            watched += [f"--shared={folder}" for folder in shared]
        for limit in sorted(POLLED - self._by_groups()):
            value = getattr(limits, limit.value)
            watched += [] if value is None else [f"--{limit.value}={value}"]
        if not watched:
            return
        # Without site-packages it is there in a third of the time.
        yield from (sys.executable, "-I", *(["-S"] if sys.platform == "linux" else []), str(GUARD))
        yield f"--over={Path(place.folder) / OVER}"
        if self._members is not None:
            yield f"--members={self._members(place)}"
        elif self.groups and (members := cgroups.here().members(place.store_id, place.key)) is not None:
            yield f"--members={members}"
        if self._first is not None:
            yield f"--first={self._first(place)}"
        yield from watched


def _with_guards(remains: Remains, place: Place) -> Remains:
    with suppress(FileNotFoundError):
        return replace(remains, full=Limit((Path(place.folder) / OVER).read_text()))
    return remains
