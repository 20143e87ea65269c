"""Looking at a store in an SQLite file: read only, without SQLAlchemy, in the caller's own thread.

For commands that look and end. Whatever is out of the ordinary (no store yet, another schema, damage) is for ``SqliteStore``.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from kapelle.adapters.store import backups, compiled
from kapelle.adapters.store.tables import SqlView, lead_of
from kapelle.core.errors import StoreDamaged, StoreFailed
from kapelle.core.leading import Lead
from kapelle.core.store import View

if TYPE_CHECKING:
    from kapelle.adapters.store.statements import Statements

T = TypeVar("T")
PATIENCE_MS = 5_000
"""How long to wait for a writer that is just beginning the log anew; otherwise nobody keeps a reader waiting."""


class SqliteReader:
    """See ``read`` of ``core.store.Store`` and ``holder`` of ``core.store.Leadership``."""

    def __init__(self, path: Path, connection: sqlite3.Connection, statements: "Statements") -> None:
        self._path = path
        self._at = connection
        self._statements = statements

    @classmethod
    def open(cls, path: Path) -> "SqliteReader | None":
        """Open the store at *path*, or return None where more is needed than to look."""
        known = compiled.load()
        if known is None or not path.exists():
            return None
        try:
            # Not made here, and not written to; but a reader of a write-ahead log needs to share the writers' index of it.
            connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=rw", uri=True, isolation_level=None)
        except sqlite3.Error:
            return None
        try:
            connection.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
            connection.execute("PRAGMA query_only = ON")
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            whole = SqlView(connection, known.statements).last_seq() >= backups.newest_event(path)
        except sqlite3.Error:
            found, whole = None, False
        if found is None or found[0] != known.head or not whole:
            connection.close()
            return None
        return cls(path, connection, known.statements)

    async def read(self, work: Callable[[View], T]) -> T:
        """See ``core.store.Store``."""
        try:
            self._at.execute("BEGIN")
            try:
                return work(SqlView(self._at, self._statements))
            finally:
                self._at.execute("ROLLBACK")
        except sqlite3.Error as error:
            if backups.means_damage(str(error)):
                raise StoreDamaged(f"the store {self._path} is damaged: {error}") from error
            raise StoreFailed(f"the store {self._path} answered: {error}") from error

    async def holder(self) -> Lead | None:
        """See ``core.store.Leadership``."""
        rows = self._statements.log.lead.run(self._at)
        return lead_of(rows[0]) if rows else None

    async def close(self) -> None:
        """See ``core.store.Store``."""
        self._at.close()
