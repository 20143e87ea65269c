"""Leading a store in this very process, as `kapelle run` does, and timing what it does."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.adapters.store.sqlite_lead import SqliteLeadership
from kapelle.adapters.system import processes
from kapelle.apps import compose
from kapelle.apps.desk import Desk
from kapelle.apps.memory import collect_less
from kapelle.apps.settings import load
from kapelle.core.agent import AgentConfig
from kapelle.core.ids import RunId
from kapelle.core.requests import Request, Submit
from kapelle.core.run import RunSpec
from kapelle.core.store import Store, Tx, View
from kapelle.core.task import TaskSpec, WorkspaceKind
from kapelle.engine.leader import Engine, Stop

T = TypeVar("T")
CONFIG = AgentConfig(name="noop", program="noop")
ENDED = "SELECT 1 FROM runs WHERE run_id = ? AND ended_at IS NOT NULL"
ASSIGNED = "SELECT 1 FROM tasks WHERE run_id = ? AND started_at IS NOT NULL LIMIT 1"
TASK = TaskSpec(name="task", agent="noop", prompt="-", workspace=WorkspaceKind.SCRATCH)


class TimedStore:
    """The store it is made from; says when a transaction was on disk after which something is true."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.store_id = store.store_id
        self._awaited: Callable[[], bool] | None = None
        self._seen = asyncio.Event()
        self._seen_at = 0.0

    def expect(self, true: Callable[[], bool]) -> None:
        """Look for this after every transaction from now on."""
        self._awaited = true
        self._seen.clear()

    async def seen_at(self) -> float:
        """Wait for what is expected; return when it was on disk."""
        await self._seen.wait()
        return self._seen_at

    async def transact(self, work: Callable[[Tx], T], *, term: int) -> T:
        """See ``core.store.Store``."""
        answer = await self._store.transact(work, term=term)
        moment = time.perf_counter()
        # After the time was taken, and in this very thread: nothing that is measured waits for it or runs beside it.
        if self._awaited is not None and self._awaited():
            self._awaited, self._seen_at = None, moment
            self._seen.set()
        return answer

    async def read(self, work: Callable[[View], T]) -> T:
        """See ``core.store.Store``."""
        return await self._store.read(work)

    async def ask(self, requests: Iterable[Request]) -> None:
        """See ``core.store.Store``."""
        await self._store.ask(requests)

    async def close(self) -> None:
        """See ``core.store.Store``."""
        await self._store.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A desk whose process leads, and its store."""

    desk: Desk
    store: TimedStore
    sqlite: SqliteStore
    looking: sqlite3.Connection


@contextlib.asynccontextmanager
async def leading(home: Path, *, slots: int | None = None) -> AsyncGenerator[Bench]:
    """Lead the store of *home*, with so many slots."""
    configuration = load(home, given={"home": home}, environment={})
    async with compose.open_desk(configuration) as composed:
        sqlite_store = composed.world.store
        if not isinstance(sqlite_store, SqliteStore):
            raise TypeError(sqlite_store)
        store = TimedStore(sqlite_store)
        settings = composed.world.settings
        world = replace(
            composed.world, store=store, settings=replace(settings, slots=settings.slots if slots is None else slots)
        )
        leadership = SqliteLeadership(sqlite_store, str(home / "lead.lock"))
        engine = Engine(world, leadership, processes.me())
        desk = Desk(
            world,
            leadership,
            engine,
            alive=processes.alive,
            end_process=processes.end_process,
            back_up=sqlite_store.back_up,
            backup_every=configuration.settings.backup_every,
            steady=time.monotonic,
            while_leading=contextlib.nullcontext,
        )
        stop = Stop()
        collect_less()

        async def never() -> bool:
            return False

        async with asyncio.TaskGroup() as group:
            leader = group.create_task(desk.lead_or_follow(never, stop))
            while await desk.leader() is None:
                await asyncio.sleep(0.01)
            with contextlib.closing(sqlite3.connect(home / "store.db", isolation_level=None)) as looking:
                yield Bench(desk=desk, store=store, sqlite=sqlite_store, looking=looking)
            stop.asked.set()
            stop.at_once.set()
            await leader


def spec(name: str, tasks: Sequence[TaskSpec]) -> RunSpec:
    """Return a run of *tasks*."""
    return RunSpec(name=name, tasks=tuple(tasks), configs=(CONFIG,))


async def run_to_end(bench: Bench, wanted: RunSpec) -> float:
    """Return the seconds from submission to the end of a run."""
    run_id = RunId(bench.desk.world.new_id("r"))
    bench.store.expect(lambda: seen(bench, ENDED, run_id))
    begun = time.perf_counter()
    await bench.desk.ask(Submit(run_id=run_id, spec=wanted), "person:bench")
    return await bench.store.seen_at() - begun


async def dispatch_ms(bench: Bench, task: TaskSpec = TASK) -> float:
    """Return the milliseconds from submission until it is on disk that the task is assigned, with the engine idle."""
    run_id = RunId(bench.desk.world.new_id("r"))
    bench.store.expect(lambda: seen(bench, ASSIGNED, run_id))
    begun = time.perf_counter()
    await bench.desk.ask(Submit(run_id=run_id, spec=spec("one", [task])), "person:bench")
    taken = await bench.store.seen_at()
    # What the engine still looks for after the end of a run is over before the next begins.
    await asyncio.sleep(0.01)
    return (taken - begun) * 1000


def seen(bench: Bench, query: str, run_id: RunId, *more: str) -> bool:
    """Say whether *query*, asked of a run and *more*, finds something."""
    return bench.looking.execute(query, (run_id, *more)).fetchone() is not None
