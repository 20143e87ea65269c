"""The engine alone: no-op tasks through submit, dispatch and report, durable (WAL, synchronous=FULL), with all their events.

Beside it, in the same run, a bare asyncio and sqlite3 loop that commits one row for each of a task's state changes, in batches,
on the same disk with the same settings: the limit that the machine sets.
"""

import asyncio
import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kapelle.apps import compose
from kapelle.apps.desk import Desk
from kapelle.apps.settings import load
from kapelle.core.agent import AgentConfig
from kapelle.core.ids import RunId
from kapelle.core.requests import Submit
from kapelle.core.run import RunSpec
from kapelle.core.task import TaskSpec, WorkspaceKind
from kapelle.engine.leader import Stop

MANY = 2_000
LAYERS, WIDE, NEEDS = 10, 100, 3
SINGLE = 40
STATES = 4
"""Rows that the bare loop writes for each task: submitted, assigned, started, completed."""
CONFIG = AgentConfig(name="noop", program="noop")
TASK = TaskSpec(name="task", agent="noop", prompt="-", workspace=WorkspaceKind.SCRATCH)


@contextlib.asynccontextmanager
async def leading(home: Path) -> AsyncGenerator[Desk]:
    """Give a desk whose process leads."""
    configuration = load(home, given={"home": home}, environment={})
    async with compose.open_desk(configuration) as desk:
        stop = Stop()

        async def never() -> bool:
            return False

        async with asyncio.TaskGroup() as group:
            leader = group.create_task(desk.lead_or_follow(never, stop))
            while await desk.leader() is None:
                await asyncio.sleep(0.01)
            yield desk
            stop.asked.set()
            stop.at_once.set()
            await leader


def spec(name: str, tasks: Sequence[TaskSpec]) -> RunSpec:
    """Return a run of *tasks*."""
    return RunSpec(name=name, tasks=tuple(tasks), configs=(CONFIG,))


async def run_to_end(desk: Desk, wanted: RunSpec) -> float:
    """Return the seconds from submission to the end of a run."""
    run_id = RunId(desk.world.new_id("r"))
    begun = time.perf_counter()
    await desk.ask(Submit(run_id=run_id, spec=wanted), "person:bench")
    while not await desk.ended([run_id]):
        await asyncio.sleep(0.001)
    return time.perf_counter() - begun


async def dispatch_ms(desk: Desk) -> float:
    """Return the milliseconds from submission until the task is seen assigned, with the engine idle."""
    run_id = RunId(desk.world.new_id("r"))
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(desk.ask(Submit(run_id=run_id, spec=spec("one", [TASK])), "person:bench"))
        while True:
            tasks = await desk.world.store.read(lambda view: view.tasks.of_run(run_id))
            if tasks and tasks[0].started_at is not None:
                break
            await asyncio.sleep(0.0002)
        taken = (time.perf_counter() - begun) * 1000
        await asking
    while not await desk.ended([run_id]):
        await asyncio.sleep(0.001)
    return taken


def dag() -> RunSpec:
    """Return a run of layers, each task of which needs three of the layer before."""
    tasks: list[TaskSpec] = []
    for layer in range(LAYERS):
        for place in range(WIDE):
            needs = tuple(f"t{layer - 1}-{(place + step) % WIDE}" for step in range(NEEDS)) if layer else ()
            tasks.append(replace(TASK, name=f"t{layer}-{place}", needs=needs))
    return spec("dag", tasks)


def bare(folder: Path) -> float:
    """Return tasks per second of a loop that only commits rows, in batches of 100."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("create table event (seq integer primary key, task text, state integer)")
    begun = time.perf_counter()
    for first in range(0, MANY, 100):
        for state in range(STATES):
            connection.execute("begin immediate")
            rows = [(f"task-{number}", state) for number in range(first, first + 100)]
            connection.executemany("insert into event (task, state) values (?, ?)", rows)
            connection.execute("commit")
    seconds = time.perf_counter() - begun
    connection.close()
    return MANY / seconds


async def measure() -> Mapping[str, float]:
    """Measure once."""
    with tempfile.TemporaryDirectory(prefix="kapelle-bench-") as place:
        folder = Path(place)
        async with leading(folder) as desk:
            await run_to_end(desk, spec("warm", [TASK]))
            many = await run_to_end(desk, spec("many", [replace(TASK, name=f"t{number}") for number in range(MANY)]))
            singles = sorted([await dispatch_ms(desk) for _ in range(SINGLE)])
            layers = await run_to_end(desk, dag())
        return {
            "throughput_tasks_per_s": MANY / many,
            "dispatch_p50_ms": statistics.median(singles),
            "dispatch_p99_ms": singles[min(len(singles) - 1, int(len(singles) * 0.99))],
            "dag_1000_s": layers,
            "bare_sqlite_tasks_per_s": bare(folder),
        }
