"""A cgroup of our own round a container's, where that is how to learn that it was out of memory.

It is made by the runner, with cgroups of version 1 where we may make them: there Podman does not say it reliably. It outlives
what is in it, so whoever clears up after the container removes it. Runtimes make the same directory for each controller.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kapelle.core.containers import RuntimeFacts

ROOT = Path("/sys/fs/cgroup")
PREFIX = "kapelle-container-"
TRIES, REST = 200, 0.01
"""A runtime's own processes may take a moment to leave."""


def own_group(facts: RuntimeFacts, name: str, memory: int | None, root: Path = ROOT) -> dict[str, object] | None:
    """Return what the runner is to make for the container *name*; None where nothing is to be made."""
    controller = root / "memory"
    may = facts.cgroup_driver == "cgroupfs" and not facts.rootless and os.access(controller, os.W_OK)
    if memory is None or not may or not (controller / "memory.oom_control").exists():
        return None
    limits = [("memory.limit_in_bytes", str(memory)), ("memory.memsw.limit_in_bytes", str(memory))]
    return {"folder": str(controller / f"{PREFIX}{name}"), "limits": limits}


def parent(name: str) -> str:
    """Return the ``CgroupParent`` of the container *name*."""
    return f"/{PREFIX}{name}"


async def remove_group(name: str, root: Path = ROOT) -> None:
    """Remove the cgroups that were made for the container *name*, in each controller, with what the runtime made in them."""
    for _ in range(TRIES):
        there = list(_folders(name, root))
        if not there:
            return
        for path in there:
            with suppress(OSError):
                path.rmdir()
        await asyncio.sleep(REST)


def _folders(name: str, root: Path) -> Iterator[Path]:
    for top in (*root.glob(f"*/{PREFIX}{name}"), *root.glob(f"{PREFIX}{name}")):
        yield from sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
        yield top
