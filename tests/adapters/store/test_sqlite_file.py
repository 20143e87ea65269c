"""What only the store in one SQLite file must do: durability, damage, readers beside a writer."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.adapters.store.sqlite_lead import SqliteLeadership
from kapelle.core.errors import StoreFailed
from kapelle.core.events import RunPaused
from kapelle.core.store import View
from kapelle.testing.conformance.samples import NOON, StillClock, a_run
from kapelle.testing.conformance.transactions import SOMEBODY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(str(path), StillClock())
    yield store
    await store.close()


def fill(path: Path, data: bytes) -> None:
    """Append *data* to the file."""
    make(path.parent)
    with path.open("ab") as stream:
        stream.write(data)


def cut(path: Path, *, pages: int) -> None:
    """Leave the first pages of the file."""
    os.truncate(path, 4096 * pages)


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


async def lead(store: SqliteStore, path: Path) -> tuple[SqliteLeadership, int]:
    leadership = SqliteLeadership(store, str(path.with_name("lock")))
    term = await leadership.take(SOMEBODY, NOON)
    assert term is not None
    return leadership, term


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 60_000)],
)
async def test_every_connection_is_durable_and_patient(store: SqliteStore, pragma: str, value: object) -> None:
    written = await store.in_writer(lambda connection: connection.execute(f"PRAGMA {pragma}").fetchone()[0])
    read = await store.in_reader(lambda connection: connection.execute(f"PRAGMA {pragma}").fetchone()[0])
    assert (written, read) == (value, value)


async def test_what_waits_together_is_committed_at_once_and_each_row_written_once(store: SqliteStore, path: Path) -> None:
    leadership, term = await lead(store, path)
    said: list[str] = []

    def listen(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(said.append)

    await store.in_writer(listen)
    run = a_run()
    async with asyncio.TaskGroup() as group:
        group.create_task(store.transact(lambda tx: tx.runs.add(run), term=term))
        for count in range(1, 4):
            group.create_task(
                store.transact(lambda tx, count=count: tx.runs.put(replace(run, unfinished=count)), term=term),
            )
    words = [statement.split()[0] for statement in said]
    assert (words.count("BEGIN"), words.count("COMMIT"), words.count("UPDATE")) == (1, 1, 1)
    found = await store.read(lambda view: view.runs.get(run.run_id))
    assert found is not None
    assert found.unfinished == 3
    await leadership.give_up(term)


async def test_an_order_that_comes_after_the_store_was_closed_is_refused(store: SqliteStore, path: Path) -> None:
    leadership, term = await lead(store, path)
    await leadership.give_up(term)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(refused(store, term))
        group.create_task(store.close())
    assert waiting.done()


async def refused(store: SqliteStore, term: int) -> None:
    with pytest.raises(StoreFailed, match="closed"):
        await store.transact(lambda tx: tx.log(RunPaused()), term=term)


async def test_a_reader_sees_one_state_while_the_writer_commits(store: SqliteStore, path: Path) -> None:
    leadership, term = await lead(store, path)
    looked, committed = threading.Event(), threading.Event()

    def look_twice(view: View) -> tuple[int, int]:
        before = view.last_seq()
        looked.set()
        assert committed.wait(10)
        return before, view.last_seq()

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(store.read(look_twice))
        await asyncio.to_thread(looked.wait, 10)
        await store.transact(lambda tx: tx.log(RunPaused()), term=term)
        committed.set()
    assert reading.result() == (0, 0)
    assert await store.read(lambda view: view.last_seq()) == 1
    await leadership.give_up(term)


async def test_a_transaction_waits_for_another_process_that_writes(store: SqliteStore, path: Path) -> None:
    leadership, term = await lead(store, path)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(store.transact(lambda tx: tx.log(RunPaused()), term=term))
        await store.read(lambda view: view.last_seq())
        assert not writing.done()
        other.execute("COMMIT")
    other.close()
    assert await store.read(lambda view: view.last_seq()) == 1
    await leadership.give_up(term)


async def test_a_file_that_is_no_database_is_refused_with_a_remedy(path: Path) -> None:
    fill(path, b"This is no database at all.\n" * 200)
    with pytest.raises(StoreFailed, match="not a database") as caught:
        await SqliteStore.open(str(path), StillClock())
    assert str(path) in caught.value.message
    assert caught.value.advice


async def test_a_damaged_file_is_told_with_a_remedy(store: SqliteStore, path: Path) -> None:
    leadership, term = await lead(store, path)
    for _ in range(50):
        await store.transact(lambda tx: tx.runs.add(a_run()), term=term)
    await leadership.give_up(term)
    await store.close()
    cut(path, pages=1)
    fill(path, b"\xff" * 100_000)
    with pytest.raises(StoreFailed) as caught:
        await SqliteStore.open(str(path), StillClock())
    assert str(path) in caught.value.message
    assert caught.value.advice


async def test_a_file_that_was_cut_off_is_told_with_a_remedy(store: SqliteStore, path: Path) -> None:
    leadership, term = await lead(store, path)
    for _ in range(50):
        await store.transact(lambda tx: tx.runs.add(a_run()), term=term)
    await leadership.give_up(term)
    await store.close()
    cut(path, pages=3)
    with pytest.raises(StoreFailed) as caught:
        await SqliteStore.open(str(path), StillClock())
    assert caught.value.advice


async def test_a_folder_in_the_place_of_the_file_is_told(path: Path) -> None:
    make(path)
    with pytest.raises(StoreFailed):
        await SqliteStore.open(str(path), StillClock())


async def test_a_file_in_the_place_of_the_folder_is_told(path: Path) -> None:
    path.parent.write_text("in the way")
    with pytest.raises(StoreFailed, match="cannot be made"):
        await SqliteStore.open(str(path), StillClock())


async def test_a_store_whose_path_has_special_characters_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "a ? b # ü %20" / "store.db"
    store = await SqliteStore.open(str(path), StillClock())
    await store.close()
    assert path.is_file()
    assert os.listdir(tmp_path) == [path.parent.name]  # noqa: PTH208  # in an async function


@pytest.mark.usefixtures("store")
async def test_the_folder_of_the_store_is_its_owners_alone(path: Path) -> None:
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_lock_file_that_cannot_be_opened_is_told(store: SqliteStore, path: Path) -> None:
    lock = path.with_name("lock")
    lock.mkdir()
    with pytest.raises(StoreFailed, match="lock"):
        await SqliteLeadership(store, str(lock)).take(SOMEBODY, NOON)


async def test_a_lead_that_could_not_be_written_is_not_held(store: SqliteStore, path: Path) -> None:
    first = SqliteLeadership(store, str(path.with_name("lock")))
    await store.in_writer(lambda connection: connection.execute("ALTER TABLE lead RENAME TO hidden"))
    with pytest.raises(StoreFailed):
        await first.take(SOMEBODY, NOON)
    await store.in_writer(lambda connection: connection.execute("ALTER TABLE hidden RENAME TO lead"))
    _, term = await lead(store, path)
    assert term == 1


async def test_a_full_disk_is_told_and_leaves_nothing_half_written(store: SqliteStore, path: Path) -> None:
    leadership, term = await lead(store, path)
    pages = await store.in_writer(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    await store.in_writer(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StoreFailed, match="full"):
        await store.transact(lambda tx: tx.log(*[RunPaused(principal="x" * 1000)] * 1000), term=term)
    await store.in_writer(lambda connection: connection.execute("PRAGMA max_page_count = 1000000"))
    await store.transact(lambda tx: tx.log(RunPaused()), term=term)
    assert await store.read(lambda view: [entry.seq for entry in view.events()]) == [1]
    await leadership.give_up(term)
