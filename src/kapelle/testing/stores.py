"""A store that a test lets its leader die in, just before or just after a commit."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

from kapelle.adapters.store import schema
from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.core.errors import StoreFailed
from kapelle.core.events import Event
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
        self._left: int | None = None
        self._after = self._telling = False
        self._refusals = 0

    def refuse(self, commits: int = 1) -> None:
        """Let the next *commits* commits that log something be refused, as by a full disk: nothing of them is written."""
        self._refusals = commits

    def die(self, *, commits: int = 1, after: bool = False, telling: bool = False) -> None:
        """Let the leader die in the commit with this number from now on, 1 being the next: before it counts, or just after it.

        With *telling* only commits count that log something: the others change hardly anything.
        """
        self._left, self._after, self._telling = commits, after, telling

    def heal(self) -> None:
        """Let nobody die any more, and every commit be taken."""
        self._left, self._refusals = None, 0

    async def transact(self, work: Callable[[Tx], T], *, term: int) -> T:
        """See the port."""
        self.commits += 1

        def call(tx: Tx) -> T:
            listening = _Listening(tx)
            answer = work(cast("Tx", listening))
            if self._refusals and self._left is None and listening.heard:
                self._refusals -= 1
                raise StoreFailed("the store answered: database or disk is full")
            if self._left is not None and (listening.heard or not self._telling):
                self._left -= 1
            if self._dying and not self._after:
                raise LeaderDied("before the commit")
            return answer

        answer = await self._store.transact(call, term=term)
        if self._dying:
            raise LeaderDied("after the commit")
        return answer

    @property
    def _dying(self) -> bool:
        return self._left is not None and self._left <= 0

    async def read(self, work: Callable[[View], T]) -> T:
        """See the port."""
        return await self._store.read(work)

    async def ask(self, requests: Iterable[Request]) -> None:
        """See the port."""
        await self._store.ask(requests)

    async def close(self) -> None:
        """See the port."""
        await self._store.close()


class _Listening:
    """A transaction, and whether anything was logged in it."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.heard = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    def log(self, *events: Event) -> None:
        self.heard = self.heard or bool(events)
        self._tx.log(*events)


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

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.about:
                connection.execute(f"DELETE FROM {table.name}")  # noqa: S608  # names of our own schema
        connection.execute("COMMIT")

    await store.in_writer(work)
    return store


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _copy_to(path: Path) -> None:
    if not path.exists():
        path.write_bytes(_template[0])
