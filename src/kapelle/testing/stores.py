"""A store that a test lets its leader die in, just before or just after a commit."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from kapelle.adapters.store import schema
from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.core.ports import Clock
from kapelle.core.requests import Request
from kapelle.core.store import Store, Tx, View

T = TypeVar("T")

_template: list[bytes] = []


class LeaderDied(Exception):
    """What a leader's step raises when a test lets the leader die in it."""


class FragileStore:
    """See ``core.store.Store``: the store it is made from, until a commit that was said to be the last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.store_id = store.store_id
        self.commits = 0
        """Transactions that were begun."""
        self._last: int | None = None
        self._after = False

    def die(self, *, commits: int = 1, after: bool = False) -> None:
        """Let the leader die in the commit with this number from now on, 1 being the next: before it counts, or just after."""
        self._last, self._after = self.commits + commits, after

    def heal(self) -> None:
        """Let nobody die any more."""
        self._last = None

    async def transact(self, work: Callable[[Tx], T], *, term: int) -> T:
        """See the port."""
        self.commits += 1
        dying = self._last is not None and self.commits >= self._last

        def fatal(tx: Tx) -> T:
            work(tx)
            raise LeaderDied("before the commit")

        answer = await self._store.transact(fatal if dying and not self._after else work, term=term)
        if dying:
            raise LeaderDied("after the commit")
        return answer

    async def read(self, work: Callable[[View], T]) -> T:
        """See the port."""
        return await self._store.read(work)

    async def ask(self, requests: Iterable[Request]) -> None:
        """See the port."""
        await self._store.ask(requests)

    async def close(self) -> None:
        """See the port."""
        await self._store.close()


async def open_sqlite(path: Path, clock: Clock) -> SqliteStore:
    """Open the SQLite store at *path*; a new one is copied from one that was made once, which is much quicker."""
    if not _template:
        with tempfile.TemporaryDirectory() as folder:
            made = await SqliteStore.open(f"{folder}/store.db", clock)
            await made.close()
            _template.append(_read(Path(folder, "store.db")))
    _copy_to(path)
    return await SqliteStore.open(str(path), clock)


async def empty(store: SqliteStore) -> SqliteStore:
    """Take everything out of *store* but its id, and return it: quicker than to open another one.

    What is put in next must have other ids than what was in it: a store remembers what never changes.
    """

    def work(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.about:
                connection.execute(table.delete())
        connection.exec_driver_sql("COMMIT")

    await store.in_writer(work)
    return store


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _copy_to(path: Path) -> None:
    if not path.exists():
        path.write_bytes(_template[0])
