"""The store on SQLite: one file, write-ahead logging, every commit synced to disk before it counts.

One thread writes and one reads, each with its own connection, so the event loop never waits for a disk and readers see a
consistent state while the leader writes. What this process has to write is done in the order in which it was asked for.

Work of one leader that waits together is committed together: one BEGIN, one check of the term, one COMMIT, one sync of the
disk. Each piece sees what the pieces before it wrote. When one of them fails, nothing of that transaction stays, and each piece
is done again in a transaction of its own: so the one that fails undoes only itself.
"""

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from kapelle.adapters.store import backups, compiled
from kapelle.adapters.store.hiding import HidingConnection
from kapelle.adapters.store.tables import SqlTx, SqlView
from kapelle.adapters.store.writer import Order, Writer
from kapelle.core.errors import LeadLost, StoreDamaged, StoreFailed
from kapelle.core.hiding import NOTHING, Hiding
from kapelle.core.ids import ALPHABET
from kapelle.core.ports import Clock
from kapelle.core.requests import Request
from kapelle.core.store import Tx, View

if TYPE_CHECKING:
    from kapelle.adapters.store.statements import Statements

T = TypeVar("T")
Ready = Callable[[], compiled.Compiled | None]

HEAD = "0013"
"""The newest migration. Kept here so that a store that is up to date is opened without loading Alembic's scripts."""
BUSY_MS = 60_000
"""How long to wait for another process's transaction. Transactions take milliseconds; this is for a process that is stopped in
the middle of one, until a follower has ended it."""
LOOK = 0.01
"""Seconds until what SQLite does not wait for by itself is tried again."""
PRAGMAS = (
    f"busy_timeout = {BUSY_MS}",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "temp_store = MEMORY",
)


def _say(connection: sqlite3.Connection, pragma: str) -> None:
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}")
        except sqlite3.OperationalError as error:
            # Two that make the same new file a write-ahead one at once: SQLite tells one of them at once, and waits for nobody.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(LOOK)
        else:
            return


class _Line:
    """A connection that one thread uses, made when that thread first needs it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: HidingConnection | None = None
        self._hiding: Callable[[], Hiding] = lambda: NOTHING
        self._lock = Lock()
        """Held while either of the two is set: whoever says what is hidden may do so in another thread."""

    def hide(self, hiding: Callable[[], Hiding]) -> None:
        """Write nothing from now on that *hiding* hides."""
        with self._lock:
            self._hiding = hiding
            if self._made is not None:
                self._made.hiding = hiding

    def connection(self) -> sqlite3.Connection:
        """Return it."""
        if self._made is None:
            # Without the driver's own idea of when a transaction begins: BEGIN is said where it is meant.
            made = sqlite3.connect(self._path, isolation_level=None, factory=HidingConnection)
            try:
                for pragma in PRAGMAS:
                    _say(made, pragma)
            except BaseException:
                made.close()
                raise
            with self._lock:
                self._made, made.hiding = made, self._hiding
        return self._made

    def close(self) -> None:
        """Close it."""
        if self._made is not None:
            self._made.close()


class SqliteStore:
    """The store of one machine, in one file.

    Open it with ``await SqliteStore.open(path, clock)``.
    """

    def __init__(self, path: Path, clock: Clock, ready: Ready = compiled.load) -> None:
        self._ready = ready()
        self._path = path
        self._clock = clock
        self._writing = _Line(path)
        self._reading = _Line(path)
        self._writer = Writer("kapelle-store", self._carry_out)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kapelle-store-reader")
        self.statements = _statements() if self._ready is None else self._ready.statements
        self.store_id = ""
        self._closed = False

    @classmethod
    async def open(cls, path: str, clock: Clock, ready: Ready = compiled.load) -> "SqliteStore":
        """Open the store at *path*, making or migrating it when needed; *ready* gives what was compiled for it beforehand.

        Raises:
            StoreDamaged: the file is damaged, or gone while there are backups of it.
            StoreFailed: the file cannot be read or written, or was made by a newer Kapelle.
        """
        place = Path(path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreFailed(f"the folder {place.parent} of the store cannot be made: {error.strerror}") from error
        if not place.exists() and backups.of(place):
            # A new one in its place would look as if nothing had ever been accepted.
            raise StoreDamaged(f"the store {place} is gone, and there are backups of it")
        store = cls(place, clock, ready)
        try:
            store.store_id = await store.in_writer(store._migrate)  # its own constructor
        except BaseException:
            await store.close()
            raise
        return store

    def hide(self, hiding: Callable[[], Hiding]) -> None:
        """From now on write nothing that *hiding* returns, at the time of writing, without hiding it."""
        self._writing.hide(hiding)

    def _migrate(self, connection: sqlite3.Connection) -> str:
        known = _version(connection)
        held = backups.newest_event(self._path)
        if held and (known is None or int(self.statements.log.last_seq.run(connection)[0][0]) < held):
            # What was lost with a write-ahead log leaves a store that looks whole, and is older than its own backup.
            raise StoreDamaged(f"the store {self._path} holds less than its last backup")
        if known == HEAD:
            # Nothing is written into a store that is up to date: it opens while somebody else writes, or is stopped in it.
            found = self.statements.log.about.run(connection, name="store_id")
            if found:
                return str(found[0][0])
        if known is not None and known > HEAD:
            raise StoreFailed(
                f"the store was made by a newer Kapelle (schema {known}, this one knows {HEAD})",
                remedy="Use that version again, or point KAPELLE_HOME at another folder.",
            )
        if known is not None or self._ready is None or not _make(connection, self._ready.schema):
            # Loaded only for a store that is not up to date: it takes longer to load than most commands take to run.
            from kapelle.adapters.store import migrating

            migrating.migrate(self._path, busy_ms=BUSY_MS)
        # One word of its own, and the first counts: several may open a new store at the same time.
        identity = "".join(secrets.choice(ALPHABET) for _ in range(8))
        self.statements.log.set_about.do(connection, name="store_id", value=identity)
        return str(self.statements.log.about.run(connection, name="store_id")[0][0])

    async def in_writer(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* in the writer thread with its connection; it says BEGIN and COMMIT itself.

        Raises:
            StoreFailed: the database answered with an error.
        """
        self._check_open()
        return await self._writer.order(work, None)

    async def in_reader(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work*, which only reads, in the reader thread with its connection: it waits for nobody who writes.

        Raises:
            StoreFailed: the database answered with an error.
        """
        self._check_open()
        running = asyncio.get_running_loop()
        return await running.run_in_executor(self._reader, self._connected, self._reading, work)

    async def transact(self, work: Callable[[Tx], T], *, term: int) -> T:
        """See ``core.store.Store``."""
        self._check_open()
        return await self._writer.order(work, term)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreFailed(f"the store {self._path} is closed")

    def _connected(self, line: _Line, work: Callable[[sqlite3.Connection], T]) -> T:
        def call() -> T:
            connection = line.connection()
            try:
                return work(connection)
            finally:
                if connection.in_transaction:
                    # It was broken off in the middle of one.
                    connection.execute("ROLLBACK")

        return self._asked(call)

    def _asked(self, work: Callable[[], T]) -> T:
        """Run *work* in its thread; what the database answers comes out as an error of ours."""
        try:
            return work()
        except sqlite3.Error as error:
            raise self._answered(error) from error

    def _answered(self, error: BaseException | None) -> StoreFailed:
        if backups.means_damage(str(error)):
            return StoreDamaged(f"the store {self._path} is damaged: {error}")
        return StoreFailed(f"the store {self._path} answered: {error}")

    def _carry_out(self, orders: Sequence[Order]) -> None:
        """Do *orders* in the writer's thread, all together or, when that fails, one by one."""
        groups = [orders]
        while groups:
            group = groups.pop(0)
            try:
                self._asked(lambda group=group: self._together(group))
            except BaseException as error:  # noqa: BLE001  # it is raised where the work was ordered
                if len(group) > 1:
                    groups = [[order] for order in group]
                    continue
                group[0].error = error

    def _together(self, orders: Sequence[Order]) -> None:
        """Do *orders* in one transaction of their term's leader; without a term, an order says BEGIN and COMMIT itself."""
        term = orders[0].term if orders else None
        if term is None:
            for order in orders:
                order.value = self._connected(self._writing, order.work)
            return
        driver = self._writing.connection()
        driver.execute("BEGIN IMMEDIATE")
        try:
            self._fence(driver, term)
            tx = SqlTx(driver, self.statements, now=self._clock.now(), term=term)
            for order in orders:
                order.value = order.work(tx)
            tx.flush()
            driver.execute("COMMIT")
        except BaseException:
            # A COMMIT that failed (a full disk) may have ended the transaction already.
            with suppress(sqlite3.Error):
                driver.execute("ROLLBACK")
            raise

    def _fence(self, connection: sqlite3.Connection, term: int) -> None:
        rows = self.statements.log.term.run(connection)
        if not rows or rows[0][0] != term:
            raise LeadLost(f"term {term} is over; the present one is {rows[0][0] if rows else 'none'}")

    async def read(self, work: Callable[[View], T]) -> T:
        """See ``core.store.Store``."""

        def call() -> T:
            driver = self._reading.connection()
            driver.execute("BEGIN")
            try:
                return work(SqlView(driver, self.statements))
            finally:
                driver.execute("ROLLBACK")

        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._asked, call)

    async def ask(self, requests: Iterable[Request]) -> None:
        """See ``core.store.Store``."""
        asked = list(requests)

        def call(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            view = SqlView(connection, self.statements)
            try:
                for request in asked:
                    view.requests.add(request)
            finally:
                self.statements.runs.rows.forget_written()
            connection.execute("COMMIT")

        await self.in_writer(call)

    async def back_up(self) -> None:
        """Copy the store beside itself, whole and checked, while others read and write.

        Raises:
            StoreDamaged: the store is damaged; the backups that are there are left alone.
            StoreFailed: the copy cannot be written.
        """
        await asyncio.to_thread(backups.make, self._path, self._clock.now())

    async def close(self) -> None:
        """See ``core.store.Store``."""
        if self._closed:
            return
        self._closed = True
        self._writer.close(self._writing.close)
        self._reader.submit(self._reading.close)
        self._reader.shutdown(wait=True)


def _statements() -> "Statements":
    # Somebody is at work on the statements: what was compiled before them is not used.
    from sqlalchemy.dialects import sqlite

    from kapelle.adapters.store.statements import Statements

    return Statements(sqlite.dialect())


def _version(connection: sqlite3.Connection) -> str | None:
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall()
    if not known:
        return None
    return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def _make(connection: sqlite3.Connection, schema: Sequence[str]) -> bool:
    """Make a new store in an empty file, as all migrations together would; say whether it is now there."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Somebody else may have been quicker; and what is not ours is not for us to build round.
        empty = not connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        if empty:
            for order in schema:
                connection.execute(order)
        made = _version(connection) == HEAD
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return made
