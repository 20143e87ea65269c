"""What a sandbox adds to starting a program: ``true`` in a ready workspace, wrapped and run to its end.

All sandboxes take turns, in the same workspace of a repository, with all that git needs inside of it. Containers are those of a
Podman that is started for this; they take turns in the small repository alone, and fewer of them.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.machine import Figures
from bench.places import git, repository
from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.bubblewrap import BubblewrapSandbox
from kapelle.adapters.sandboxes.container.images import HostImages
from kapelle.adapters.sandboxes.container.runtimes import PodmanRuntime
from kapelle.adapters.sandboxes.container.sandbox import ContainerSandbox
from kapelle.adapters.sandboxes.process import ProcessSandbox
from kapelle.adapters.workspaces.worktrees import GitWorkspaces
from kapelle.core.git import WorkspaceOrder
from kapelle.core.ids import WorkspaceId
from kapelle.core.isolation import Place
from kapelle.core.ports import Launch, Sandbox
from kapelle.testing.podman import missing_programs, podman_service

TURNS, FEW_TURNS = 41, 3
SELDOM = 4
"""Containers take a turn in so many: each takes as long as ten of the others."""
FILES = {"small": 50, "large": 5_000}


async def measure(*, small: bool = False) -> Figures:
    """Measure once: in a repository of 50 files, and in one of 5,000."""
    if problem := BubblewrapSandbox().missing():
        return {"bubblewrap_missing": problem}
    found: Figures = {}
    sizes = {"small": FILES["small"]} if small else FILES
    for name, files in sizes.items():
        with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as folder, _containers(name) as container:
            took = await _all(Path(folder), files, FEW_TURNS if small else TURNS, container)
        suffix = "" if name == "small" else "_5000_files"
        found |= {f"{each}_ms{suffix}": value for each, value in took.items()}
        found |= {f"{each}_overhead_ms{suffix}": took[each] - took["process"] for each in took if each != "process"}
    return found


@contextmanager
def _containers(size: str) -> Generator[dict[str, Sandbox]]:
    """Give the container sandbox with a Podman of its own, where there is one and it is its turn."""
    if size != "small" or missing_programs():
        yield {}
        return
    with podman_service() as address:
        runtime = PodmanRuntime({**os.environ, "CONTAINER_HOST": address})
        yield {"container": ContainerSandbox({"podman": runtime}, {"host": HostImages()})}


async def _all(folder: Path, files: int, turns: int, container: Mapping[str, Sandbox]) -> dict[str, float]:
    root = repository(folder / "repository", {f"{number % 97}/{number}.txt": f"{number}\n" for number in range(files)})
    workspaces, path = GitWorkspaces(), str(folder / "workspace")
    order = WorkspaceOrder(workspace_id=WorkspaceId("w"), path=path, repository=str(root), base=git(root, "rev-parse", "HEAD"))
    await workspaces.prepare(order)

    async def seconds(sandbox: Sandbox) -> float:
        begun = time.perf_counter()
        mounts = tuple(await workspaces.reach(path, str(root))) if sandbox.capabilities.files else ()
        place = Place(
            workspace=path,
            folder=str(folder / sandbox.name),
            home=str(folder / sandbox.name / "home"),
            store_id="bench",
            key="w",
            mounts=mounts,
        )
        wrapped = await sandbox.wrap(Launch(argv=("true",), cwd=path), place)
        result = await LocalHost().run(wrapped, str(folder / sandbox.name / "output"))
        await sandbox.clear(place)
        if result.exit_code != 0:
            raise RuntimeError(f"{sandbox.name}: {result.tail}")
        await sandbox.clear(place)
        return time.perf_counter() - begun

    makers = {"process": ProcessSandbox(), "bubblewrap": BubblewrapSandbox(), **container}
    took: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(turns + 1):
        for name, sandbox in makers.items():
            if name in container and turn % SELDOM and turns > SELDOM:
                continue
            passed = await seconds(sandbox)
            if turn > 0:
                took[name].append(passed)
    return {name: statistics.median(each) * 1000 for name, each in took.items()}
