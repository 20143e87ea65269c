"""What was loaded from a row is remembered: for what is as it was, and for nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from kapelle.adapters.store.rows import LONGEST_ROW, ROWS
from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.adapters.store.sqlite_lead import SqliteLeadership
from kapelle.core.ids import TaskId
from kapelle.core.task import Task, TaskState
from kapelle.testing.conformance.samples import NOON, StillClock, a_run, a_task
from kapelle.testing.conformance.transactions import SOMEBODY

RUN = a_run()


@asynccontextmanager
async def store_of(folder: Path, *tasks: Task) -> AsyncIterator[tuple[SqliteStore, int]]:
    """Open a store that holds *tasks*; with the term of whoever leads."""
    store = await SqliteStore.open(str(folder / "store.db"), StillClock())
    try:
        term = await SqliteLeadership(store, str(folder / "lock")).take(SOMEBODY, NOON)
        assert term is not None
        await store.transact(lambda tx: tx.runs.add(RUN), term=term)
        await store.transact(lambda tx: tx.tasks.add(tasks, ()), term=term)
        yield store, term
    finally:
        await store.close()


async def found(store: SqliteStore, task: Task) -> Task | None:
    """Read *task* in a transaction of its own."""
    return await store.read(lambda view: view.tasks.get(task.task_id))


async def test_what_is_as_it_was_is_loaded_once(tmp_path: Path) -> None:
    task = a_task(RUN)
    async with store_of(tmp_path, task) as (store, term):
        first = await found(store, task)
        assert first == task
        assert await found(store, task) is first
        changed = replace(task, state=TaskState.CANCELLED, ended_at=NOON)
        await store.transact(lambda tx: tx.tasks.put(changed), term=term)
        assert await found(store, task) == changed
        await store.transact(lambda tx: tx.tasks.put(task), term=term)
        assert await found(store, task) == task


async def test_another_store_has_its_own_though_its_rows_are_the_same(tmp_path: Path) -> None:
    """The columns are equal; what is in a table of its own is not."""
    task = a_task(RUN)
    other = replace(task, spec=replace(task.spec, prompt="something else"))
    (tmp_path / "other").mkdir()
    async with store_of(tmp_path, task) as (store, _):
        assert await found(store, task) == task
    async with store_of(tmp_path / "other", other) as (store, _):
        assert await found(store, other) == other


async def test_what_is_long_is_not_kept(tmp_path: Path) -> None:
    task = a_task(RUN, state=TaskState.COMPLETED, ended_at=NOON, summary="x" * LONGEST_ROW)
    async with store_of(tmp_path, task) as (store, _):
        first = await found(store, task)
        assert first == task
        assert await found(store, task) is not first


async def test_no_more_is_kept_than_is_good(tmp_path: Path) -> None:
    tasks = [a_task(RUN, task_id=TaskId(f"t-{number}")) for number in range(ROWS + 1)]
    async with store_of(tmp_path, *tasks) as (store, _):
        first = await found(store, tasks[0])
        assert await store.read(lambda view: list(view.tasks.of_run(RUN.run_id))) == tasks
        assert await found(store, tasks[0]) is not first
