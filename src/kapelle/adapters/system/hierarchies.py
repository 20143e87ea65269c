"""The trees of control groups on this machine: where this process may make some, and where others have made some."""

import os
import re
import subprocess
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kapelle.core.isolation import Limit

OWN = Path("/proc/self/cgroup")
MOUNTS = Path("/proc/self/mountinfo")
PREFIX = "kapelle-"
SCOPE = "kapelle.scope"
"""The group that a user's service manager gives to whoever leads, and to those that lead after it: see ``scopes``."""
LEADERS = "leaders"
"""The group in a scope, or in a service, that those who lead are in: one with processes in it hands down no controllers."""
SECOND = 2
"""The version of the interface that has one tree for all controllers."""
CONTROLLERS = {Limit.MEMORY: "memory", Limit.CPUS: "cpu", Limit.PIDS: "pids"}
JOIN = 'echo 0 > "$1"'


@dataclass(frozen=True)
class Hierarchy:
    """A tree of groups in which this process may make some."""

    version: int
    folder: Path
    """The group below which they are made."""
    controllers: frozenset[str]

    def group(self, store_id: str, key: str) -> Path:
        """Return where the group of a process is."""
        return self.folder / f"{PREFIX}{store_id}" / safe(key)


def mounted() -> Iterator[Hierarchy]:
    """Yield the hierarchies of this machine, each at the group that this process is in, and for version 2 at those above it."""
    try:
        own = [line.split(":", 2) for line in OWN.read_text().splitlines()]
        mounts = _mounts()
    except OSError:
        return
    for fields in mounts:
        kind, options = _kind(fields)
        for number, names, path in own:
            controllers = set(names.split(",")) if names else set[str]()
            if kind == "cgroup2" and number == "0":
                yield from _second(seen_at(fields, path), Path(unescaped(fields[4])))
            elif kind == "cgroup" and controllers and controllers <= options:
                yield Hierarchy(version=1, folder=seen_at(fields, path), controllers=frozenset(controllers))


def _mounts() -> list[list[str]]:
    """Return the fields of what ``mountinfo`` says of trees of groups."""
    every = (line.split() for line in MOUNTS.read_text().splitlines())
    return [fields for fields in every if _kind(fields)[0] in {"cgroup", "cgroup2"}]


def _kind(fields: list[str]) -> tuple[str, set[str]]:
    return fields[fields.index("-") + 1], set(fields[-1].split(","))


def second_of(pid: int | str) -> str | None:
    """Return the path of the group of version 2 that *pid* is in, as it is named to this process; None when there is none."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return line.removeprefix("0::")
    return None


def second_at(path: str) -> Path | None:
    """Return where the group *path* of version 2 is seen; None where it is not."""
    with suppress(OSError):
        for fields in _mounts():
            if _kind(fields)[0] == "cgroup2" and (folder := seen_at(fields, path)).is_dir():
                return folder
    return None


def own_second() -> Path | None:
    """Return the group of version 2 that this process is in; None when there is none to be seen."""
    path = second_of("self")
    return second_at(path) if path is not None else None


def _second(folder: Path, top: Path) -> Iterator[Hierarchy]:
    """Yield *folder* and those above it, the nearest first: a group with processes in it can have none below it with limits."""
    if folder.name == LEADERS:
        folder = folder.parent
    while folder.is_relative_to(top):
        with suppress(OSError):
            there = frozenset((folder / "cgroup.controllers").read_text().split())
            yield Hierarchy(version=2, folder=folder, controllers=there & set(CONTROLLERS.values()))
        folder = folder.parent


def seen_at(fields: list[str], path: str) -> Path:
    """Return where the group *path* is seen through a mount, given as the fields of its line in ``mountinfo``."""
    root, point = unescaped(fields[3]), Path(unescaped(fields[4]))
    inner = path.removeprefix(root) if root != "/" and path.startswith(root) else path
    return point / inner.lstrip("/")


def anywhere(store_id: str) -> list[Path]:
    """Return all groups on this machine that groups of processes of a store are made in, whoever made them.

    An earlier leader may have been in another session, or in a service: what it has started is then in a group that is not
    below the one this process is in. Groups with nothing in them any more are found as well; those that are somebody else's,
    who had the same store once, are left to them.
    """
    try:
        mounts = _mounts()
    except OSError:
        return []
    wanted, found = set(CONTROLLERS.values()), dict[tuple[int, int], Path]()
    for fields in mounts:
        kind, options = _kind(fields)
        if kind != "cgroup2" and not wanted & options:
            continue
        for folder in _named(unescaped(fields[4]), f"{PREFIX}{store_id}"):
            with suppress(OSError):
                facts = folder.stat()
                if not os.access(folder, os.W_OK):
                    continue
                # A tree can be seen at several places.
                found.setdefault((facts.st_dev, facts.st_ino), folder)
    return list(found.values())


def _named(top: str, name: str) -> Iterator[Path]:
    """Yield the groups called *name* in the tree at *top*."""
    waiting = [top]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    continue
                if entry.name == name:
                    yield Path(entry.path)
                elif not entry.name.startswith(PREFIX):
                    waiting.append(entry.path)


def unescaped(text: str) -> str:
    """Return the path that *text* is in ``mountinfo``."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)


def usable(hierarchy: Hierarchy) -> bool:
    """Say whether a group can be made there, and a process of ours can go into it."""
    group = hierarchy.group(f"probe-{os.getpid()}", "probe")
    try:
        make_group(hierarchy, group, hierarchy.controllers)
        if os.geteuid() == 0:
            return os.access(group / "cgroup.procs", os.W_OK)
        # Others need a right in the group that is above both, too, and which one that is depends on the machine.
        tried = subprocess.run(["/bin/sh", "-c", JOIN, "sh", str(group / "cgroup.procs")], capture_output=True, check=False)
    except OSError:
        return False
    finally:
        for each in (group, group.parent):
            with suppress(OSError):
                each.rmdir()
    return tried.returncode == 0


def make_group(hierarchy: Hierarchy, group: Path, controllers: Collection[str]) -> None:
    """Make *group* in a tree, two below where groups can be made there, with *controllers*.

    Raises:
        OSError: it cannot be made, or has not all of them.
    """
    if hierarchy.version == 1 or not controllers:
        group.mkdir(parents=True, exist_ok=True)
        return
    # In version 2 a group has the controllers that the one above it hands down.
    for above in (hierarchy.folder, group.parent):
        above.mkdir(exist_ok=True)
        handed_down = set((above / "cgroup.subtree_control").read_text().split())
        if missing := sorted(set(controllers) - handed_down):
            (above / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in missing))
    group.mkdir(exist_ok=True)


def safe(key: str) -> str:
    """Return *key* as the name of a group."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", key)
