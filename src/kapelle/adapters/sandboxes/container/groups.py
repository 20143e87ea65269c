"""Cgroups of our own round a container's, where that is how to learn what became of its limits.

With cgroups of version 1, where the runtime makes its own as Podman does without systemd: there it does not say reliably that a
container was out of memory, and nowhere that it could start no further processes. The runner makes them and looks into them;
they outlive what is in them, so whoever clears up after the container removes them.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kapelle.core.containers import RuntimeFacts
from kapelle.core.isolation import Place, ProcessLimits

ROOT = Path("/sys/fs/cgroup")
PREFIX = "kapelle-container-"
TRIES, REST = 500, 0.01
"""A runtime's own processes take a moment to leave; seconds between tries."""


def own_group(facts: RuntimeFacts, place: Place, name: str, root: Path = ROOT) -> dict[str, object] | None:
    """Return what the runner is to make and look into for the container *name*; None where there is nothing to be learned."""
    limits = place.isolation.limits
    if limits == ProcessLimits() or facts.cgroup_driver != "cgroupfs" or facts.rootless:
        return None
    folders = {each: root / each for each in ("memory", "pids")}
    if not all(os.access(folder, os.W_OK) for folder in folders.values()):
        return None
    within = f"{PREFIX}{place.store_id}-{name}"
    memory: list[tuple[str, str]] = []
    if limits.memory is not None:
        memory = [("memory.limit_in_bytes", str(limits.memory)), ("memory.memsw.limit_in_bytes", str(limits.memory))]
    return {
        "parent": f"/{within}",
        "memory": str(folders["memory"] / within),
        "limits": memory,
        "pids": str(folders["pids"] / within),
        "members": str(members(place)),
    }


def members(place: Place) -> Path:
    """Return what leads to the file that names the processes of a container, once it is there."""
    return Path(place.folder) / "container" / "members"


async def remove_group(place: Place, name: str, root: Path = ROOT) -> None:
    """Remove the cgroups that were made for the container *name*, in each controller, with what the runtime made in them."""
    members(place).unlink(missing_ok=True)
    for _ in range(TRIES):
        there = list(_folders(f"{PREFIX}{place.store_id}-{name}", root))
        if not there:
            return
        _remove(there)
        await asyncio.sleep(REST)


def remove_empty(store_id: str, root: Path = ROOT) -> None:
    """Remove all such cgroups of a store that nothing is in."""
    _remove(_folders(f"{PREFIX}{store_id}-kapelle-*", root))


def _remove(folders: Iterator[Path] | list[Path]) -> None:
    for path in list(folders):
        with suppress(OSError):
            path.rmdir()


def _folders(pattern: str, root: Path) -> Iterator[Path]:
    for top in root.glob(f"*/{pattern}"):
        yield from sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
        yield top
