"""The bubblewrap sandbox: a file system with nothing in it but what the work needs, and processes that see only each other.

What is inside keeps its paths, so that what git, tools and people write down means the same in and out. Started by root,
bubblewrap builds all of it, and the very first thing that it starts gives up every right and becomes somebody who owns nothing
else: only root reaches state directories that are closed to others. Started by anybody else, a user namespace does.

The shim stays outside: it records how the process ended, holds the time limit, and when it ends, ``--die-with-parent`` ends
everything inside. No ``--new-session``: the shim's group is how all of it is ended, and there is no terminal to reach.
"""

import os
import subprocess
from collections.abc import Collection, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path

from kapelle.adapters.sandboxes.given import ETC, given, private
from kapelle.adapters.sandboxes.holding import Holding
from kapelle.adapters.sandboxes.leading import Leading
from kapelle.adapters.sandboxes.programs import SYSTEM, is_below, needed
from kapelle.adapters.sandboxes.surroundings import environment
from kapelle.adapters.system.ownership import agent
from kapelle.adapters.system.trusted import system_program
from kapelle.core.agent import ProcessRef
from kapelle.core.errors import HostFailed
from kapelle.core.frozen import replace
from kapelle.core.isolation import Mount, MountKind, Place, Remains, SandboxCapabilities
from kapelle.core.ports import Launch

TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108  # they are the sandbox's own, and empty
ROOTS_RIGHTS = ("CAP_DAC_READ_SEARCH", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
"""What it takes to go where others may not, and there to give up everything, these too."""
PATIENCE = 30.0
"""Seconds after which a try whether bubblewrap works is given up."""


class BubblewrapSandbox:
    """See ``core.ports.Sandbox``."""

    name = "bubblewrap"

    def __init__(self) -> None:
        self._holding = Holding()

    @property
    def capabilities(self) -> SandboxCapabilities:
        """What it isolates on this machine."""
        return SandboxCapabilities(
            screens=True,
            files=True,
            network=True,
            pids=True,
            ends_all=True,
            limits=self._holding.holds(),
            held_by=self._holding.by,
        )

    def missing(self) -> str:
        return _problem()[0]

    def remedy(self) -> str:
        return _problem()[1]

    async def wrap(self, launch: Launch, place: Place) -> Launch:
        if problem := self.missing():
            raise HostFailed(f"the sandbox bubblewrap cannot be used: {problem}", remedy=self.remedy())
        own, way = given(launch, place), Leading(place.way)
        env = {**way.environment(), **environment(launch, place)}
        shown = needed(env.get("PATH", os.defpath), (launch.argv[0], *launch.programs, *way.programs()), private(place))
        programs = [Mount(kind=MountKind.READ, path=path) for path in shown]
        mounts = [*programs, *place.isolation.mounts, *own, *way.mounts()]
        built = [*_base(place.isolation.limits.disk), *_mounts(mounts), *_closed(mounts)]
        network = ("--unshare-net",) if place.isolation.network.closed else ()
        argv = (*_bubblewrap(), *network, *built, "--chdir", launch.cwd, "--", *_become(), *way.command(), *launch.argv)
        return await self._holding.held(replace(launch, argv=argv, env=tuple(env.items())), place)

    async def clear(self, place: Place) -> Remains:
        return await self._holding.cleared(place)

    async def met(self, place: Place) -> Remains:
        return self._holding.met(place)

    async def sweep(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        return await self._holding.swept(store_id, keep)

    async def leftovers(self, store_id: str, keep: Collection[str]) -> Sequence[str]:
        return self._holding.leftovers(store_id, keep)

    async def freeze(self, place: Place, process: ProcessRef | None) -> None:
        await self._holding.freeze(place, process)

    async def thaw(self, place: Place, process: ProcessRef | None) -> None:
        await self._holding.thaw(place, process)

    async def inside(self, store_id: str, keys: Collection[str]) -> Sequence[ProcessRef]:
        return self._holding.inside(store_id, keys)


def _bubblewrap() -> Iterator[str]:
    yield from (
        system_program("bwrap") or "bwrap",
        "--die-with-parent",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--cap-drop",
        "ALL",
    )
    if agent() is None:
        yield "--unshare-user"
        return
    for right in ROOTS_RIGHTS:
        yield from ("--cap-add", right)


def _become() -> tuple[str, ...]:
    """Return what becomes the agent's user and gives up all rights, for ever, before anything of the agent's runs."""
    who = agent()
    if who is None:
        return ()
    dropped = ("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs")
    return (system_program("setpriv") or "setpriv", f"--reuid={who}", f"--regid={who}", "--clear-groups", *dropped, "--")


@lru_cache(maxsize=16)
def _base(room: int | None) -> tuple[str, ...]:
    """Return what is the same for everybody: the system's programs, and the little of /etc that they ask for.

    *room* is how many bytes a file system in memory may hold.
    """
    return tuple(_system(() if room is None else ("--size", str(room))))


def _system(size: tuple[str, ...]) -> Iterator[str]:
    for path in SYSTEM:
        if Path(path).is_symlink():
            yield from ("--symlink", str(Path(path).readlink()), path)
        elif Path(path).is_dir():
            yield from ("--ro-bind", path, path)
    yield from ("--proc", "/proc", "--dev", "/dev")
    for path in (*TEMPORARY, "/dev/shm"):  # noqa: S108  # its own, too
        yield from ("--perms", "1777", *size, "--tmpfs", path)
    yield from ("--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/run")
    for name in ETC:
        if Path("/etc", name).exists():
            yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")


def _mounts(mounts: list[Mount]) -> Iterator[str]:
    """Yield how *mounts* are made, with the directories that lead to them: others than their owner must get through, too."""
    made = [*TEMPORARY, "/etc", "/run", "/dev", "/proc", *SYSTEM]
    for mount in mounts:
        for parent in reversed(Path(mount.path).parents):
            there = str(parent)
            if there != "/" and there not in made and not any(is_below(there, other.path) for other in mounts):
                made.append(there)
                yield from ("--perms", "0555", "--dir", there)
        source = mount.source or mount.path
        if mount.kind is MountKind.HIDE and Path(source).is_file():
            yield from ("--ro-bind", os.devnull, mount.path)
        elif mount.kind is MountKind.HIDE:
            yield from ("--perms", "0755", "--tmpfs", mount.path)
        else:
            yield from ("--bind" if mount.kind is MountKind.WRITE else "--ro-bind", source, mount.path)


def _closed(mounts: list[Mount]) -> Iterator[str]:
    """Yield how what only leads to mounts is closed: who writes there is told so, instead of losing it with the sandbox."""
    empty = [mount.path for mount in mounts if mount.kind is MountKind.HIDE and not Path(mount.source or mount.path).is_file()]
    for path in (*empty, "/dev", "/"):
        yield from ("--remount-ro", path)


@cache
def _problem() -> tuple[str, str]:
    """Return why bubblewrap does not work here, and what to do; it is tried once in the life of a process."""
    needs = ("bwrap", "setpriv") if agent() is not None else ("bwrap",)
    gone = [name for name in needs if system_program(name) is None]
    if gone:
        return f"{' and '.join(gone)} cannot be found", "Install bubblewrap and util-linux; it needs Linux."
    argv = [*_bubblewrap(), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", *_become(), "true"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap cannot be started: {error}", "Try it by hand: bwrap --ro-bind / / true"
    if done.returncode == 0:
        return "", ""
    said = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
    why = f"{said}; this machine (or the container that Kapelle runs in) does not allow new namespaces"
    return why, "Allow them to your user, or use `sandbox: container`."
