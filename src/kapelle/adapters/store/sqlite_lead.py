"""Leadership on SQLite: a file lock that the kernel releases when its holder dies, and a term that every commit checks."""

import fcntl
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from kapelle.adapters.store.rows import to_microseconds
from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.adapters.store.tables import lead_of
from kapelle.core.agent import ProcessRef
from kapelle.core.errors import LeadLost, StoreFailed
from kapelle.core.leading import Lead


class SqliteLeadership:
    """Who leads the store of one machine.

    The lock says who may lead now; the row says who it is and when it was last alive, for everybody else.
    """

    def __init__(self, store: SqliteStore, lock_path: str) -> None:
        self._store = store
        self._path = Path(lock_path)
        self._held: int | None = None
        self._term: int | None = None
        """The term that the lock is held for."""

    async def take(self, me: ProcessRef, now: datetime) -> int | None:
        """See ``core.store.Leadership``."""
        if self._held is None:
            self._held = self._lock()
        if self._held is None:
            return None
        log = self._store.statements.log

        def call(connection: sqlite3.Connection) -> int:
            connection.execute("BEGIN IMMEDIATE")
            rows = log.term.run(connection)
            term = (rows[0][0] if rows else 0) + 1
            log.take.do(
                connection,
                term=term,
                boot_id=me.boot_id,
                pid=me.pid,
                started=me.started,
                renewed_at=to_microseconds(now),
                given_up=0,
            )
            connection.execute("COMMIT")
            return term

        try:
            self._term = await self._store.in_writer(call)
        except BaseException:
            self._unlock()
            raise
        return self._term

    async def renew(self, term: int, now: datetime) -> None:
        """See ``core.store.Leadership``."""
        log = self._store.statements.log
        changed = await self._store.in_writer(
            lambda connection: log.renew.do(connection, my_term=term, at=to_microseconds(now))
        )
        if changed == 0:
            raise LeadLost(f"term {term} is over; another process leads")

    async def give_up(self, term: int) -> None:
        """See ``core.store.Leadership``."""
        log = self._store.statements.log
        try:
            await self._store.in_writer(lambda connection: log.give_up.do(connection, my_term=term))
        finally:
            if term == self._term:
                self._unlock()

    async def holder(self) -> Lead | None:
        """See ``core.store.Leadership``."""
        # Not in the writer's thread: a leader that was stopped in the middle of a commit is to be found, too.
        rows = await self._store.in_reader(self._store.statements.log.lead.run)
        return lead_of(rows[0]) if rows else None

    def _lock(self) -> int | None:
        return _acquire(self._path)

    def _unlock(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = self._term = None


def _acquire(path: Path) -> int | None:
    """Take the lock at once and return its handle, or None when another process holds it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreFailed(f"the lock file {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    # For people, when the store cannot be read. Emptying needs no room on the disk: at worst nobody is named, never another.
    os.ftruncate(handle, 0)
    with suppress(OSError):
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def holder_of(path: Path) -> int | None:
    """Return the process that took the lock at *path* last, or None when it is not written there."""
    try:
        written = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(written) if written.isdecimal() else None


@contextmanager
def lock(path: Path) -> Generator[bool]:
    """Hold the lock of the lead, without a term: while the store itself is exchanged. Says whether it is held."""
    handle = _acquire(path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)
