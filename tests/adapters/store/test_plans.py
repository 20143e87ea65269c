"""What every pass of the engine asks costs the same however much there is: SQLite finds it by a partial index."""

import sqlite3
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kapelle.adapters.store.rows import Statement
from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.adapters.store.statements import Statements
from kapelle.testing.conformance.samples import StillClock

ASKED: dict[str, tuple[str, Mapping[str, Any]]] = {
    "tasks.due": ("tasks_ready", {"now": 1, "limit": 300, "after_rank": -1e300, "after_id": ""}),
    "tasks.next_due": ("tasks_later", {"now": 1}),
    "tasks.in_state": ("tasks_busy", {"state": "validating", "limit": 500}),
    "attempts.without_agent": ("tasks_busy", {}),
    "agents.live": ("agents_live", {}),
    "runs.open": ("runs_open", {}),
    "runs.done": ("runs_open", {}),
    "changes.queued": ("changes_queued", {}),
    "questions.open": ("questions_open", {}),
    "log.requests_open": ("requests_open", {"limit": 100}),
}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(str(tmp_path / "store.db"), StillClock())
    yield store
    await store.close()


def statement(statements: Statements, name: str) -> Statement:
    group, _, what = name.partition(".")
    return getattr(getattr(statements, group), what)


@pytest.mark.parametrize("name", ASKED)
async def test_what_every_pass_asks_is_found_by_a_partial_index(store: SqliteStore, name: str) -> None:
    index, values = ASKED[name]
    asked = statement(store.statements, name)

    def plan(connection: sqlite3.Connection) -> list[str]:
        given = tuple({**asked.compiled.fixed, **values}[parameter] for parameter in asked.names)
        rows = connection.execute(f"EXPLAIN QUERY PLAN {asked.compiled.text}", given).fetchall()
        return [row[3] for row in rows]

    steps = await store.in_reader(plan)
    assert f"USING INDEX {index}" in steps[0]
    assert not [
        step for step in steps if step.startswith("SCAN") and "USING" not in step and not step.startswith("SCAN CONSTANT")
    ]
