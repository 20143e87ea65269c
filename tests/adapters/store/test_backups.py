"""Backups of the store, and what is done with them when it is damaged."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from kapelle.adapters.store import backups
from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.adapters.store.sqlite_lead import SqliteLeadership
from kapelle.core.errors import NotPossibleNow, StoreDamaged, StoreFailed
from kapelle.core.events import RunPaused
from kapelle.testing.clock import NOON, HandClock
from kapelle.testing.conformance.samples import a_run
from kapelle.testing.conformance.transactions import SOMEBODY


class Shop:
    """A store that is led, and its file."""

    def __init__(self, path: Path, store: SqliteStore, clock: HandClock, term: int) -> None:
        self.path, self.store, self.clock, self.term = path, store, clock, term

    async def happens(self) -> None:
        await self.store.transact(lambda tx: tx.log(RunPaused(principal="you")), term=self.term)

    async def backs_up(self) -> Path:
        self.clock.move(timedelta(minutes=1))
        await self.store.back_up()
        return backups.of(self.path)[0]

    async def is_damaged(self, *, pages: int = 1) -> None:
        """Close it and overwrite all but its first pages."""
        await self.store.close()
        with self.path.open("r+b") as stream:
            stream.seek(4096 * pages)
            stream.write(os.urandom(self.path.stat().st_size - 4096 * pages))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    path, clock = tmp_path / "state" / "store.db", HandClock()
    store = await SqliteStore.open(str(path), clock)
    term = await SqliteLeadership(store, str(tmp_path / "lock")).take(SOMEBODY, NOON)
    assert term is not None
    yield Shop(path, store, clock, term)
    await store.close()


async def test_a_backup_holds_everything_in_one_file(shop: Shop) -> None:
    await shop.happens()
    backup = await shop.backs_up()
    with closing(sqlite3.connect(backup)) as copy:
        assert copy.execute("SELECT kind FROM events").fetchall() == [("run.paused",)]
        assert copy.execute("SELECT value FROM about WHERE name = 'store_id'").fetchall() == [(shop.store.store_id,)]
    assert [entry.name for entry in backup.parent.iterdir()] == [backup.name]


async def test_only_the_newest_are_kept(shop: Shop) -> None:
    made = [await shop.backs_up() for _ in range(5)]
    assert backups.of(shop.path) == made[:1:-1]


async def test_the_rest_of_a_backup_that_was_broken_off_is_cleared_away(shop: Shop) -> None:
    rest = shop.path.parent / "backups" / "store-1.unfinished"
    rest.parent.mkdir()
    rest.write_bytes(b"half")
    await shop.backs_up()
    assert not rest.exists()


async def test_what_another_process_is_just_writing_is_left_to_it(shop: Shop) -> None:
    folder = shop.path.parent / "backups"
    folder.mkdir(exist_ok=True)
    busy, dead = folder / f"store-1.{os.getppid()}.unfinished", folder / "store-1.4194305.unfinished-journal"
    for path in (busy, dead):
        path.touch()
    backups.make(shop.path, NOON)
    assert (busy.exists(), dead.exists()) == (True, False)


async def test_of_a_damaged_store_no_backup_is_made_and_the_good_ones_stay(shop: Shop) -> None:
    for _ in range(backups.KEEP):
        await shop.backs_up()
    good = backups.of(shop.path)
    await shop.is_damaged()
    with pytest.raises(StoreDamaged):
        backups.make(shop.path, shop.clock.now())
    assert backups.of(shop.path) == good
    assert sorted(good[0].parent.iterdir()) == sorted(good)


async def test_a_damaged_store_is_told_at_opening_with_what_to_do(shop: Shop) -> None:
    await shop.is_damaged()
    with pytest.raises(StoreDamaged) as caught:
        await SqliteStore.open(str(shop.path), shop.clock)
    assert "kapelle restore" in caught.value.in_full


async def test_damage_that_is_met_at_work_is_told_and_nothing_more_is_written(shop: Shop) -> None:
    await shop.happens()
    # All that is cached goes with a new connection; the file below it is damaged where the events are.
    await shop.is_damaged(pages=3)
    with pytest.raises(StoreDamaged):
        await look_at_everything(shop)


async def look_at_everything(shop: Shop) -> None:
    store = await SqliteStore.open(str(shop.path), shop.clock)
    try:
        await store.read(lambda view: (view.events(), view.runs.overviews(), view.agents.live(), view.requests.open()))
    finally:
        await store.close()


async def test_a_store_that_is_gone_is_not_made_anew_when_there_are_backups(shop: Shop) -> None:
    await shop.happens()
    await shop.backs_up()
    await shop.store.close()
    shop.path.unlink()
    with pytest.raises(StoreDamaged, match="gone"):
        await SqliteStore.open(str(shop.path), shop.clock)


async def test_a_store_that_holds_less_than_its_backup_is_not_taken_for_whole(shop: Shop) -> None:
    await shop.happens()
    await shop.backs_up()
    await shop.store.close()
    with closing(sqlite3.connect(shop.path)) as store:
        store.execute("DELETE FROM events")
        store.commit()
    with pytest.raises(StoreDamaged, match="less than its last backup"):
        await SqliteStore.open(str(shop.path), shop.clock)


async def test_the_newest_good_backup_takes_the_place_of_a_damaged_store_which_is_kept(shop: Shop) -> None:
    await shop.happens()
    good = await shop.backs_up()
    bad = await shop.backs_up()
    bad.write_bytes(b"no database at all")
    await shop.is_damaged()
    damaged = shop.path.read_bytes()

    restored = backups.restore(shop.path, shop.clock.now())

    assert restored.backup == good
    assert restored.made_at == NOON + timedelta(minutes=1)
    assert restored.aside is not None
    assert restored.aside.read_bytes() == damaged
    again = await SqliteStore.open(str(shop.path), shop.clock)
    assert again.store_id == shop.store.store_id
    assert await again.read(lambda view: view.last_seq()) == 1
    await again.close()


async def test_what_was_accepted_after_the_backup_is_named(shop: Shop) -> None:
    await shop.happens()
    await shop.backs_up()
    await shop.happens()
    run = a_run()
    await shop.store.transact(lambda tx: tx.runs.add(run), term=shop.term)
    for folder in ("workspaces/api-w-1", "agents/g-1"):
        (shop.path.parent / folder).mkdir(parents=True)
    await shop.store.close()
    # Damage that leaves the runs readable: it is met when all is looked at.
    with closing(sqlite3.connect(shop.path)) as store:
        page = store.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events'").fetchone()[0]
    with shop.path.open("r+b") as stream:
        stream.seek(4096 * (page - 1))
        stream.write(os.urandom(4096))

    restored = backups.restore(shop.path, shop.clock.now())

    workspace = shop.path.parent / "workspaces" / "api-w-1"
    assert restored.missing == (f"run {run.run_id}", f"workspace {workspace}", "agent g-1")


async def test_a_store_in_order_is_left_alone(shop: Shop) -> None:
    await shop.happens()
    await shop.backs_up()
    await shop.store.close()
    with pytest.raises(NotPossibleNow, match="in order"):
        backups.restore(shop.path, shop.clock.now())


async def test_without_a_good_backup_nothing_is_touched(shop: Shop) -> None:
    await shop.is_damaged()
    damaged = shop.path.read_bytes()
    with pytest.raises(StoreFailed, match="no good backup"):
        backups.restore(shop.path, shop.clock.now())
    assert shop.path.read_bytes() == damaged
