"""The schema that migrations make, and stores of other versions."""

import asyncio
import json
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import TypeAdapter
from sqlalchemy import create_engine

from kapelle.adapters.store import compiled, migrating
from kapelle.adapters.store.migrating import upgrade
from kapelle.adapters.store.schema import metadata
from kapelle.adapters.store.sqlite import HEAD, SqliteStore
from kapelle.core.budget import Allowance
from kapelle.core.errors import StoreFailed
from kapelle.core.events import BudgetReached, RunPaused
from kapelle.core.ids import AttemptId, RunId
from kapelle.core.requests import Submit
from kapelle.core.run import RunSpec
from kapelle.core.task import TaskSpec
from kapelle.testing.conformance.samples import StillClock, a_request, a_run, a_task


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(str(path), StillClock())


@contextmanager
def looking(path: Path) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def objects(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' AND name != 'alembic_version'"
    )
    return {name: " ".join(sql.replace('"', "").split()) for name, sql in rows}


def shape(connection: sqlite3.Connection) -> dict[str, Any]:
    """Columns, keys and indexes of every table, as SQLite understands them."""
    tables = sorted(name for name, sql in objects(connection).items() if sql.startswith("CREATE TABLE"))
    return {name: connection.execute(f"PRAGMA table_xinfo({name})").fetchall() for name in tables}


def indexes(connection: sqlite3.Connection) -> dict[str, str]:
    return {name: sql for name, sql in objects(connection).items() if "INDEX" in sql.split("(", 1)[0]}


async def test_migrations_make_what_the_metadata_says(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.begin() as migrated:
        upgrade(migrated)
        assert compare_metadata(MigrationContext.configure(migrated, opts={"compare_type": True}), metadata) == []
    engine.dispose()
    meant = create_engine(f"sqlite:///{tmp_path / 'meant.db'}")
    metadata.create_all(meant)
    meant.dispose()
    with looking(tmp_path / "migrated.db") as migrated, looking(tmp_path / "meant.db") as direct:
        assert shape(migrated) == shape(direct)
        assert indexes(migrated) == indexes(direct)
        assert objects(migrated)["events"].count("AUTOINCREMENT") == 1


async def test_a_new_store_is_made_at_once_as_all_migrations_together_make_it(tmp_path: Path) -> None:
    assert compiled.load() is not None
    migrating.migrate(tmp_path / "migrated.db", busy_ms=1_000)
    store = await opened(tmp_path / "made.db")
    await store.in_writer(lambda connection: connection.execute("DELETE FROM about"))
    await store.close()
    with looking(tmp_path / "made.db") as made, looking(tmp_path / "migrated.db") as migrated:
        assert list(made.iterdump()) == list(migrated.iterdump())
        assert (
            made.execute("PRAGMA journal_mode").fetchall() == migrated.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        )


async def test_a_new_store_is_made_by_the_migrations_while_somebody_works_on_them(tmp_path: Path) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.db"), StillClock(), lambda: None)
    request = a_request()
    await store.ask([request])
    assert await store.read(lambda view: list(view.requests.open())) == [request]
    await store.close()


def test_the_newest_migration_is_the_one_that_the_store_expects() -> None:
    config = Config()
    config.set_main_option("script_location", "kapelle.adapters.store:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    first = await opened(path)
    before = await first.in_writer(objects)
    request = a_request()
    await first.ask([request])
    await first.close()
    second = await opened(path)
    assert await second.in_writer(objects) == before
    assert second.store_id == first.store_id
    assert await second.read(lambda view: list(view.requests.open())) == [request]
    await second.close()


@pytest.mark.parametrize("number", range(12))
async def test_a_new_store_may_be_opened_by_several_at_the_same_time(tmp_path: Path, number: int) -> None:
    """Each time: SQLite does not wait where the mode of a file is changed, and that is met by one in ten."""
    async with asyncio.TaskGroup() as group:
        opening = [group.create_task(opened(tmp_path / f"store-{number}.db")) for _ in range(6)]
    stores = [task.result() for task in opening]
    assert len({store.store_id for store in stores}) == 1
    for store in stores:
        await store.close()


async def test_a_store_of_a_newer_kapelle_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    await store.in_writer(lambda connection: connection.execute("UPDATE alembic_version SET version_num = '9999'"))
    await store.close()
    with pytest.raises(StoreFailed, match="newer Kapelle") as caught:
        await opened(path)
    assert "9999" in caught.value.message
    assert "KAPELLE_HOME" in caught.value.advice
    with looking(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


async def test_a_migration_that_was_broken_off_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    def break_off(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT)")

    dying = SqliteStore(path, StillClock())
    await dying.in_writer(break_off)
    await dying.close()
    store = await opened(path)
    assert store.store_id
    await store.close()


async def test_a_migration_is_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    # A table is there already that a migration makes in the middle: it fails, and nothing before it stays.
    with looking(path) as connection:
        connection.execute("CREATE TABLE runs (other TEXT)")
    with pytest.raises(StoreFailed, match="newest schema"):
        await opened(path)
    with looking(path) as connection:
        assert list(shape(connection)) == ["runs"]


async def test_what_an_older_store_held_is_there_after_the_migration(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    config = Config()
    config.set_main_option("script_location", "kapelle.adapters.store:migrations")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO attempts (attempt_id, task_id, run_id, number, term, config, conversation_id, round, gate_rounds,"
            " merge_returns, result_rounds, interruptions, crashes, tool_calls, own_cost_usd, started_at)"
            " VALUES ('a-1', 't-1', 'r-1', 1, 1, 'coder', 'c-1', 0, 0, 0, 0, 2, 0, 5, 0.0, 0)"
        )
    engine.dispose()
    store = await opened(path)
    attempt = await store.read(lambda view: view.attempts.get(AttemptId("a-1")))
    await store.close()
    assert attempt is not None
    assert (attempt.interruptions, attempt.interrupted_at, attempt.overflows, attempt.tool_calls) == (2, None, 0, 5)


async def test_budgets_of_an_older_store_hold_as_before(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    engine = create_engine(f"sqlite:///{path}")
    task = {"name": "one", "budget_usd": 0.5}
    spec = {"name": "shop", "tasks": [task], "limits": {"agents": 2, "budget_usd": 5.0}}
    asked = json.dumps({"run_id": "r-next", "spec": {"name": "next", "tasks": [{"name": "two"}]}})
    reached = {"run_id": "r-bounded", "budget": "task one", "limit_usd": 0.5, "spent_usd": 0.75}
    with engine.begin() as connection:
        upgrade(connection, "0005")
        connection.exec_driver_sql(
            "INSERT INTO runs (run_id, state, paused, unfinished, principal, submitted_at)"
            " VALUES ('r-bounded', 'running', 0, 1, '', 0)"
        )
        connection.exec_driver_sql("INSERT INTO run_specs (run_id, spec) VALUES ('r-bounded', ?)", (json.dumps(spec),))
        connection.exec_driver_sql("INSERT INTO task_specs (task_id, spec) VALUES ('t-bounded', ?)", (json.dumps(task),))
        connection.exec_driver_sql(
            "INSERT INTO requests (request_id, kind, body, principal, asked_at)"
            " VALUES ('q-1', 'Submit', ?, 'p', 0), ('q-2', 'Submit', 'no JSON', 'p', 0)",
            (asked,),
        )
        connection.exec_driver_sql(
            "INSERT INTO events (at, term, kind, run_id, body) VALUES (0, 1, 'budget.reached', 'r-bounded', ?)",
            (json.dumps(reached),),
        )
    engine.dispose()
    store = await opened(path)
    run = await store.read(lambda view: view.runs.get(RunId("r-bounded")))
    (first, _) = await store.read(lambda view: view.requests.open())
    (entry,) = await store.read(lambda view: view.events())
    await store.close()
    assert run is not None
    assert (run.spec.limits.budget, run.spec.tasks[0].budget) == (Allowance(usd=5.0), Allowance(usd=0.5))
    assert isinstance(first.body, Submit)
    assert first.body.spec.tasks[0].budget == Allowance()
    assert entry.event == BudgetReached(run_id=RunId("r-bounded"), budget="task one", resource="usd", limit=0.5, spent=0.75)


async def test_sequence_numbers_are_never_used_again(tmp_path: Path) -> None:
    """Old events may be cleared away one day; readers hold numbers."""
    store = await opened(tmp_path / "store.db")

    def clear(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO lead VALUES (1, 1, 'boot', 1, '1', 0, 0)",
        )

    await store.in_writer(clear)
    await store.transact(lambda tx: tx.log(RunPaused(), RunPaused()), term=1)
    await store.in_writer(lambda connection: connection.execute("DELETE FROM events"))
    await store.transact(lambda tx: tx.log(RunPaused()), term=1)
    assert await store.read(lambda view: [entry.seq for entry in view.events()]) == [3]
    await store.close()


async def test_specifications_of_an_earlier_schema_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    run = a_run()
    task = a_task(run)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection, "0002")
    engine.dispose()
    with looking(path) as connection:
        for row in (
            ("runs", {"run_id": run.run_id, "spec": TypeAdapter(RunSpec).dump_json(run.spec).decode()}),
            ("tasks", {"task_id": task.task_id, "spec": TypeAdapter(TaskSpec).dump_json(task.spec).decode()}),
        ):
            insert_whole(connection, *row)
    store = await opened(path)
    found = await store.read(lambda view: (view.runs.get(run.run_id), view.tasks.get(task.task_id)))
    assert [thing.spec for thing in found if thing is not None] == [run.spec, task.spec]
    await store.close()


def insert_whole(connection: sqlite3.Connection, table: str, given: dict[str, Any]) -> None:
    """Insert a row; a column that is not given holds the least that its type allows."""
    least = {"TEXT": "", "INTEGER": 0, "BIGINT": 0, "FLOAT": 0.0}
    states = {"runs": {"state": "running"}, "tasks": {"state": "pending"}}
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    row = {name: None if not needed else least[kind] for _, name, kind, needed, *_ in columns} | states[table] | given
    names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" for _ in row)
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))  # noqa: S608  # names of this file
