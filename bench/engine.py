"""The engine alone: no-op tasks through submit, dispatch and report, durable, with all their events."""

import asyncio
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import peers
from bench.leading import TASK, Bench, dispatch_ms, leading, run_to_end, spec
from bench.machine import Figures
from kapelle.core.run import RunSpec
from kapelle.core.task import TaskSpec

NEEDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is run."""

    many: int = 2_000
    single: int = 300
    layers: int = 10
    wide: int = 100
    few: int = 100
    pending: int = 100_000
    pairs: int = 60
    peer: int = 200


SMALL = Size(many=20, single=3, layers=3, wide=4, few=5, pending=50, pairs=3, peer=5)


def dag(size: Size) -> RunSpec:
    """Return a run of layers, each task of which needs three of the layer before."""
    tasks: list[TaskSpec] = []
    for layer in range(size.layers):
        for place in range(size.wide):
            needs = tuple(f"t{layer - 1}-{(place + step) % size.wide}" for step in range(NEEDS)) if layer else ()
            tasks.append(replace(TASK, name=f"t{layer}-{place}", needs=needs))
    return spec("dag", tasks)


async def synchronous(bench: Bench) -> str:
    """Return what the store says about syncing, in SQLite's words."""
    mode = await bench.sqlite.in_writer(lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0])
    return {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}[int(mode)]


async def measure(*, small: bool = False) -> Figures:
    """Measure once."""
    size = SMALL if small else Size()
    with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as place:
        folder = Path(place)
        async with leading(folder / "home") as bench:
            await run_to_end(bench, spec("warm", [TASK]))
            tasks = [replace(TASK, name=f"t{number}") for number in range(size.many)]
            many = await run_to_end(bench, spec("many", tasks))
            singles = [await dispatch_ms(bench) for _ in range(size.single)]
            layers = await run_to_end(bench, dag(size))
            said = await synchronous(bench)
        limit = await peers.bare(folder, size.many)
        commit = await peers.bare_commit_ms(folder, size.single)
        dbos = await peers.dbos(folder, size.peer)
        held = await _in_a_process_of_its_own(folder, size)
    return {
        "synchronous": said,
        "throughput_tasks_per_s": size.many / many,
        "dispatch_p50_ms": statistics.median(singles),
        "dispatch_p99_ms": percentile(singles, 0.99),
        "dag_1000_s": layers,
        **held,
        "bare_sqlite_tasks_per_s": limit,
        "bare_commit_p50_ms": statistics.median(commit),
        "bare_commit_p99_ms": percentile(commit, 0.99),
        **dbos,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * share) - 1]


async def _in_a_process_of_its_own(folder: Path, size: Size) -> Figures:
    """Measure memory, and dispatches with many tasks waiting, where nothing else was done before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.pending", str(folder), str(size.few), str(size.pending), str(size.pairs),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"bench.pending ended with exit code {process.returncode}")
    return json.loads(said)
