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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from kapelle.adapters.store import backups
from kapelle.adapters.store.statements import Statements
from kapelle.adapters.store.tables import SqlTx, SqlView
from kapelle.adapters.store.writer import Order, Writer
from kapelle.core.errors import LeadLost, StoreDamaged, StoreFailed
from kapelle.core.ids import ALPHABET
from kapelle.core.ports import Clock
from kapelle.core.requests import Request
from kapelle.core.store import Tx, View

T = TypeVar("T")

HEAD = "0004"
"""The newest migration. Kept here so that a store that is up to date is opened without loading Alembic's scripts."""
BUSY_MS = 60_000
"""How long to wait for another process's transaction. Transactions take milliseconds; this is for a process that is stopped in
the middle of one, until a follower has ended it."""


def _engine(path: Path) -> Engine:
    # Each engine is used by one thread only, which SQLite's own check would not know to be so when the pool is static.
    # Not as text: a path may hold what means something in a URL.
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})

    def prepare(connection: sqlite3.Connection, _: object) -> None:
        # The driver's own idea of when a transaction begins is switched off: BEGIN is said where it is meant.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout = {BUSY_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine, "connect", prepare)
    return engine


class SqliteStore:
    """The store of one machine, in one file.

    Open it with ``await SqliteStore.open(path, clock)``.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._writing = _engine(path)
        self._reading = _engine(path)
        self._writer = Writer("kapelle-store", self._carry_out)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kapelle-store-reader")
        self.statements = Statements(self._writing.dialect)
        self.store_id = ""
        self._closed = False
        self._drivers: dict[Engine, sqlite3.Connection] = {}

    @classmethod
    async def open(cls, path: str, clock: Clock) -> "SqliteStore":
        """Open the store at *path*, making or migrating it when needed.

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
        store = cls(place, clock)
        try:
            store.store_id = await store.in_writer(store._migrate)  # its own constructor
        except BaseException:
            await store.close()
            raise
        return store

    def _migrate(self, connection: Connection) -> str:
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
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            if _version(connection) != HEAD:
                upgrade(connection)
            identity = "".join(secrets.choice(ALPHABET) for _ in range(8))
            self.statements.log.set_about.do(connection, name="store_id", value=identity)
            found = str(self.statements.log.about.run(connection, name="store_id")[0][0])
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
        return found

    async def in_writer(self, work: Callable[[Connection], T]) -> T:
        """Run *work* in the writer thread with its connection; it says BEGIN and COMMIT itself.

        Raises:
            StoreFailed: the database answered with an error.
        """
        self._check_open()
        return await self._writer.order(work, None)

    async def in_reader(self, work: Callable[[Connection], T]) -> T:
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

    def _connected(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        def call() -> T:
            with engine.connect() as connection:
                return work(connection)

        return self._asked(call)

    def _asked(self, work: Callable[[], T]) -> T:
        """Run *work* in its thread; what the database answers comes out as an error of ours."""
        try:
            return work()
        except sqlite3.Error as error:
            raise self._answered(error) from error
        except DatabaseError as error:
            raise self._answered(error.orig) from error
        except SQLAlchemyError as error:
            raise StoreFailed(f"the store {self._path} cannot be used: {error}") from error

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
        driver = self._driver(self._writing)
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

    def _driver(self, engine: Engine) -> sqlite3.Connection:
        """Return the driver's own connection, which the engine's pool keeps open: transactions need nothing round it."""
        if engine not in self._drivers:
            with closing(engine.raw_connection()) as lent:
                driver = lent.driver_connection
            if not isinstance(driver, sqlite3.Connection):
                raise StoreFailed(f"the store {self._path} is not reached by sqlite3 but by {type(driver)}")
            self._drivers[engine] = driver
        return self._drivers[engine]

    def _fence(self, connection: sqlite3.Connection, term: int) -> None:
        rows = self.statements.log.term.run(connection)
        if not rows or rows[0][0] != term:
            raise LeadLost(f"term {term} is over; the present one is {rows[0][0] if rows else 'none'}")

    async def read(self, work: Callable[[View], T]) -> T:
        """See ``core.store.Store``."""

        def call() -> T:
            driver = self._driver(self._reading)
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

        def call(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                view = SqlView(connection, self.statements)
                for request in asked:
                    view.requests.add(request)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                with suppress(DatabaseError):
                    connection.exec_driver_sql("ROLLBACK")
                raise

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
        self._writer.close(self._writing.dispose)
        self._reader.submit(self._reading.dispose)
        self._reader.shutdown(wait=True)


def _version(connection: Connection) -> str | None:
    known = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall()
    if not known:
        return None
    return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())


def upgrade(connection: Connection, to: str = "head") -> None:
    """Bring the database to the newest schema, or to that of the migration *to*, inside the transaction that is open.

    Raises:
        StoreFailed: it was made by a newer Kapelle.
    """
    found = _version(connection)
    if found is not None and found > HEAD:
        raise StoreFailed(
            f"the store was made by a newer Kapelle (schema {found}, this one knows {HEAD})",
            remedy="Use that version again, or point KAPELLE_HOME at another folder.",
        )
    # Alembic is loaded only for a store that is not up to date: it takes longer to load than most commands take to run.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "kapelle.adapters.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, to)
