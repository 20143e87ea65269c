"""Rows of requests that another process wrote: whatever is in them, the leader goes on, and names what it refuses."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.adapters.store.tables import BODIES
from kapelle.core.events import RequestRefused
from kapelle.core.ids import RunId
from kapelle.core.requests import Submit
from kapelle.core.run import RunSpec
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.worlds import SmallWorld

ROW: dict[str, Any] = {
    "request_id": "q-broken",
    "kind": "Cancel",
    "body": '{"run_id": "r-1"}',
    "principal": "you",
    "asked_at": 0,
}


def write(store: SqliteStore, **changes: Any) -> None:
    row = {**ROW, **changes}
    statement = "insert or ignore into requests (request_id, kind, body, principal, asked_at) values (?, ?, ?, ?, ?)"
    with closing(sqlite3.connect(store._path, isolation_level=None)) as connection:
        connection.execute(statement, tuple(row[name] for name in ROW))


def open_rows(store: SqliteStore) -> int:
    with closing(sqlite3.connect(store._path, isolation_level=None)) as connection:
        return int(connection.execute("select count(*) from requests where settled_at is null").fetchone()[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "Nonsense"}, "is no kind of request"),
        ({"kind": b"\xff"}, "utf-8"),
        ({"body": "{"}, "JSON"),
        ({"body": ""}, "JSON"),
        ({"body": b"\xff\xfe\x00"}, "JSON"),
        ({"body": "[" * 100_000}, "recursion"),
        ({"body": '{"run_id": 7}'}, "run_id"),
        ({"body": '{"run_id": "r-1", "spec": {}}', "kind": "Submit"}, "spec"),
        ({"asked_at": "yesterday"}, "its row is broken"),
        ({"asked_at": 1 << 62}, "its row is broken"),
        ({"principal": b"\xff"}, "its row is broken"),
        ({"request_id": b"\xff\xfe"}, "its row is broken"),
        ({"request_id": b"a"}, "there is no run r-1"),
        ({}, "there is no run r-1"),
    ],
)
async def test_a_broken_request_is_refused_and_named(
    here: SmallWorld, opened: SqliteStore, changes: dict[str, Any], said: str
) -> None:
    write(opened, **changes)
    await here.submit(run_spec(task("a", gate=None)))
    leader = await here.lead()
    await leader.run()

    assert (await here.task("a")).state is TaskState.RUNNING
    (refused,) = await here.events(RequestRefused)
    assert said in refused.reason
    assert refused.request_id
    assert open_rows(opened) == 0


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "kind": st.sampled_from([*BODIES, "", "submit"]) | st.binary(max_size=4),
                "body": st.text(max_size=8)
                | st.binary(max_size=8)
                | st.recursive(
                    st.none() | st.integers() | st.text(max_size=3),
                    lambda inner: st.dictionaries(st.sampled_from(["run_id", "task_id", "spec", "tasks", "name"]), inner),
                    max_leaves=6,
                ).map(json.dumps),
                "principal": st.text(max_size=3) | st.binary(max_size=3),
                "asked_at": st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=3) | st.floats(),
                "request_id": st.text(max_size=3) | st.binary(max_size=3),
            },
        ),
        max_size=4,
    )
)
async def test_no_row_stops_the_leader(here: SmallWorld, opened: SqliteStore, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        try:
            write(opened, **row)
        except (sqlite3.IntegrityError, UnicodeEncodeError):
            continue  # the store itself takes no such row
    leader = await here.lead()
    await leader.step("submit")
    assert open_rows(opened) == 0
    await leader.die()


GOOD = run_spec(task("a", gate=None), task("b", needs=("a",), gate=None))


def with_task(**changes: Any) -> RunSpec:
    return replace(GOOD, tasks=(replace(GOOD.tasks[0], **changes), GOOD.tasks[1]))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (replace(GOOD, tasks=(GOOD.tasks[0], GOOD.tasks[0])), "the same name"),
        (replace(GOOD, name="x\x1b[2J"), "cannot be shown"),
        (replace(GOOD, target="a..b"), "two dots together"),
        (replace(GOOD, inputs="["), "no JSON object"),
        (with_task(needs=("b",)), "in a circle"),
        (with_task(needs=("nobody",)), "no task of the run"),
        (with_task(agent="ghost"), "does not have"),
        (with_task(gate="nothing"), "does not have"),
        (with_task(prompt="x" * 5_000_000), "1048576 are the most"),
        (with_task(prompt="a\0b"), "NUL"),
        (with_task(timeout=timedelta(days=900_000)), "time limit"),
        (with_task(timeout=timedelta(seconds=-1)), "time limit"),
        (with_task(max_attempts=10**9), "may not be tried"),
        (with_task(result_schema="{"), "no JSON"),
        (with_task(item="{"), "no JSON"),
        (with_task(name="a\nb"), "cannot be shown"),
        (with_task(name="x" * 300), "200 are the most"),
    ],
)
async def test_a_run_that_no_door_would_submit_is_refused(here: SmallWorld, spec: RunSpec, said: str) -> None:
    request_id = await here.ask(Submit(run_id=RunId("r-1"), spec=spec))
    leader = await here.lead()
    await leader.run()
    assert said in (await here.refusal(request_id) or "")
    assert not await here.tasks()
