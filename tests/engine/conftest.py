"""A small world for every test: the real store, fakes of everything else, and nothing that sleeps."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from zlib import crc32

import pytest

from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.testing.clock import HandClock
from kapelle.testing.stores import empty, open_sqlite
from kapelle.testing.worlds import SmallWorld, world


class TestsOwnClock:
    """The clock of whatever test runs."""

    def __init__(self) -> None:
        self.of_test = HandClock()

    def now(self) -> datetime:
        return self.of_test.now()


CLOCK = TestsOwnClock()


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """One store for all tests, emptied before each: to open one takes longer than most of them."""
    store = asyncio.run(open_sqlite(tmp_path_factory.mktemp("engine") / "store.db", CLOCK))
    yield store
    asyncio.run(store.close())


@pytest.fixture
async def here(tmp_path: Path, opened: SqliteStore, request: pytest.FixtureRequest) -> AsyncIterator[SmallWorld]:
    # Every test has ids of its own, the same each time.
    seed = crc32(request.node.nodeid.encode())
    async with world(tmp_path, seed=seed, store=await empty(opened)) as made:
        CLOCK.of_test = made.clock
        yield made
