"""What a sandbox adds to starting a program: ``true`` in a ready workspace, wrapped and run to its end.

Both sandboxes take turns, in the same workspace of a repository, with all that git needs inside of it.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.machine import Figures
from bench.places import git, repository
from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.sandboxes.bubblewrap import BubblewrapSandbox
from kapelle.adapters.sandboxes.process import ProcessSandbox
from kapelle.adapters.workspaces.worktrees import GitWorkspaces
from kapelle.core.ids import WorkspaceId
from kapelle.core.isolation import Place
from kapelle.core.ports import Launch, Sandbox, WorkspaceOrder

TURNS, FEW_TURNS = 41, 3
FILES = {"small": 50, "large": 5_000}


async def measure(*, small: bool = False) -> Figures:
    """Measure once: in a repository of 50 files, and in one of 5,000."""
    if problem := BubblewrapSandbox().missing():
        return {"bubblewrap_missing": problem}
    found: Figures = {}
    sizes = {"small": FILES["small"]} if small else FILES
    for name, files in sizes.items():
        with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as folder:
            turns = FEW_TURNS if small else TURNS
            process, bubblewrap = await _both(Path(folder), files, turns)
        suffix = "" if name == "small" else "_5000_files"
        found[f"process_ms{suffix}"] = process
        found[f"bubblewrap_ms{suffix}"] = bubblewrap
        found[f"bubblewrap_overhead_ms{suffix}"] = bubblewrap - process
    return found


async def _both(folder: Path, files: int, turns: int) -> tuple[float, float]:
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
        if result.exit_code != 0:
            raise RuntimeError(f"{sandbox.name}: {result.tail}")
        await sandbox.clear(place)
        return time.perf_counter() - begun

    took: dict[str, list[float]] = {"process": [], "bubblewrap": []}
    makers: dict[str, Callable[[], Sandbox]] = {"process": ProcessSandbox, "bubblewrap": BubblewrapSandbox}
    for turn in range(turns + 1):
        for name, make in makers.items():
            passed = await seconds(make())
            if turn > 0:
                took[name].append(passed)
    return statistics.median(took["process"]) * 1000, statistics.median(took["bubblewrap"]) * 1000
