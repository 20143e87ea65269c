"""Looking at a store without SQLAlchemy: the same answers, and nothing else."""

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.dialects import sqlite

from kapelle.adapters.store import compiled, migrating
from kapelle.adapters.store.sqlite import HEAD, SqliteStore
from kapelle.adapters.store.sqlite_lead import SqliteLeadership
from kapelle.adapters.store.sqlite_reader import SqliteReader
from kapelle.adapters.store.statements import Statements
from kapelle.core.errors import StoreFailed
from kapelle.core.events import RunPaused
from kapelle.core.store import Edge, Tx, View
from kapelle.testing.conformance.samples import NOON, StillClock, a_change, a_request, a_run, a_task, an_agent, an_attempt
from kapelle.testing.conformance.transactions import SOMEBODY


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """A store with a row of each kind, led by somebody."""
    path = tmp_path / "store.db"
    store = await SqliteStore.open(str(path), StillClock())
    leadership = SqliteLeadership(store, str(tmp_path / "lock"))
    term = await leadership.take(SOMEBODY, NOON)
    assert term is not None
    run = a_run()
    first, second = a_task(run, name="first"), a_task(run, name="second")
    attempt = an_attempt(first)

    def work(tx: Tx) -> None:
        tx.runs.add(run)
        tx.tasks.add([first, second], [Edge(task_id=second.task_id, need_id=first.task_id)])
        tx.attempts.put(attempt)
        tx.agents.put(an_agent(attempt))
        tx.changes.put(a_change(attempt))
        tx.requests.add(a_request())
        tx.log(RunPaused(run_id=run.run_id))

    await store.transact(work, term=term)
    yield path
    await leadership.give_up(term)
    await store.close()


def everything(view: View) -> list[object]:
    runs = view.runs.open()
    tasks = [task for run in runs for task in view.tasks.of_run(run.run_id)]
    return [
        runs,
        view.runs.overviews(),
        tasks,
        [view.tasks.needs(task.task_id) for task in tasks],
        [view.attempts.of_task(task.task_id) for task in tasks],
        [view.changes.of_task(task.task_id) for task in tasks],
        view.agents.live(),
        view.requests.open(),
        view.events(),
    ]


async def test_a_reader_sees_what_the_store_sees(path: Path) -> None:
    store = await SqliteStore.open(str(path), StillClock())
    reader = SqliteReader.open(path)
    assert reader is not None
    assert await reader.read(everything) == await store.read(everything)
    assert await reader.holder() == await SqliteLeadership(store, str(path.with_name("lock"))).holder()
    await reader.close()
    await store.close()


async def test_a_reader_writes_nothing(path: Path) -> None:
    reader = SqliteReader.open(path)
    assert reader is not None
    with pytest.raises(StoreFailed, match="readonly"):
        await reader.read(lambda view: view.runs.add(a_run()))
    await reader.close()


def test_where_more_is_needed_than_to_look_there_is_no_reader(path: Path, tmp_path: Path) -> None:
    assert SqliteReader.open(tmp_path / "none.db") is None
    assert not (tmp_path / "none.db").exists()
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database at all" * 1000)
    assert SqliteReader.open(damaged) is None
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert SqliteReader.open(path) is None


def test_the_compiled_queries_are_what_the_statements_say() -> None:
    """`make fix` writes them anew."""
    assert compiled.FILE.read_text(encoding="utf-8") == compiled.dump(Statements(sqlite.dialect()), HEAD, migrating.schema())


def test_queries_that_were_compiled_from_other_statements_are_not_used(tmp_path: Path) -> None:
    stale = tmp_path / "compiled.json"
    stale.write_text(
        json.dumps({**json.loads(compiled.FILE.read_text(encoding="utf-8")), "made_from": "others"}), encoding="utf-8"
    )
    assert compiled.load(stale) is None
