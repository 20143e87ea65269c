"""Bringing a store's file to the newest schema, by Alembic's migrations.

Only a store of an earlier version needs this: a new one is made at once as the migrations would make it (``compiled``), and
loading SQLAlchemy and Alembic takes longer than most commands take.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from kapelle.core.errors import StoreFailed

OBJECTS = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"


def migrate(path: Path, *, busy_ms: int) -> None:
    """Bring the store in the file *path* to the newest schema, in one transaction.

    Raises:
        StoreFailed: a migration failed, and nothing of it stays; or the file cannot be written.
    """
    # Not as text: a path may hold what means something in a URL.
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            _begin(connection, busy_ms)
            upgrade(connection)
            connection.exec_driver_sql("COMMIT")
    except SQLAlchemyError as error:
        raise StoreFailed(f"the store {path} cannot be brought to the newest schema: {error}") from error
    finally:
        engine.dispose()


def upgrade(connection: Connection, to: str = "head") -> None:
    """Bring the database to the newest schema, or to that of the migration *to*, inside the transaction that is open."""
    config = Config()
    config.set_main_option("script_location", "kapelle.adapters.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def schema() -> list[str]:
    """Return the statements that make a new store as all migrations together make it."""
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            upgrade(connection)
            made = [str(row[0]) for row in connection.exec_driver_sql(OBJECTS)]
            version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    finally:
        engine.dispose()
    return [*made, f"INSERT INTO alembic_version (version_num) VALUES ('{version}')"]  # noqa: S608  # of our own migrations


def _begin(connection: Connection, busy_ms: int) -> None:
    driver = connection.connection.driver_connection
    if driver is None:
        raise StoreFailed("the store has no connection")
    # The driver's own idea of when a transaction begins is switched off: BEGIN is said where it is meant.
    driver.isolation_level = None
    for order in (
        f"PRAGMA busy_timeout = {busy_ms}",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "BEGIN IMMEDIATE",
    ):
        connection.exec_driver_sql(order)
