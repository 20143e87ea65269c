"""Whatever the leader writes: no known value of a secret is in the store, in no table and in no event."""

import json
from dataclasses import replace
from pathlib import Path

from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.adapters.store.sqlite_lead import SqliteLeadership
from kapelle.core.agent import ProcessRef
from kapelle.core.events import AgentSaid
from kapelle.core.hiding import NOTHING, Hiding, Secret
from kapelle.core.isolation_events import NetworkDenied
from kapelle.core.store import Tx
from kapelle.testing.conformance.samples import NOON, StillClock, a_run, a_task

VALUE = 'correct-"horse"-battery'
TOKEN = "npm" + "_" + "x" * 36


def written_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("store.db*"))


async def test_no_table_and_no_event_holds_a_value_that_is_known(tmp_path: Path) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.db"), StillClock())
    hiding = NOTHING
    store.hide(lambda: hiding)
    term = await SqliteLeadership(store, str(tmp_path / "lock")).take(ProcessRef(boot_id="b", pid=1, started="1"), NOON)
    assert term is not None
    run = a_run()
    task = a_task(run)

    def begin(tx: Tx) -> None:
        tx.runs.add(run)
        tx.tasks.add([task], ())
        tx.log(AgentSaid(run_id=run.run_id, task_id=task.task_id, text=f"before {TOKEN}"))

    await store.transact(begin, term=term)
    hiding = Hiding([Secret(name="KEY", value=VALUE)])

    def go_on(tx: Tx) -> None:
        found = tx.tasks.get(task.task_id)
        assert found is not None
        tx.tasks.put(replace(found, summary=f"it is {VALUE}", result=json.dumps({"is": VALUE}), detail=VALUE))
        host, ids = f"{VALUE}.example.org", (run.run_id, task.task_id)
        tx.log(NetworkDenied(run_id=ids[0], task_id=ids[1], key="g", host=host, port=443, reason=f"no {VALUE}"))

    await store.transact(go_on, term=term)
    found = await store.read(lambda view: view.tasks.get(task.task_id))
    assert found is not None
    assert (found.summary, found.result, found.detail) == ("it is [secret KEY]", '{"is": "[secret KEY]"}', "[secret KEY]")
    events = [entry.event for entry in await store.read(lambda view: view.events())]
    assert [event.text for event in events if isinstance(event, AgentSaid)] == ["before [redacted npm-token]"]
    assert [(event.host, event.reason) for event in events if isinstance(event, NetworkDenied)] == [
        ("[secret KEY].example.org", "no [secret KEY]")
    ]
    await store.close()
    written = written_in(tmp_path)
    assert not any(form in written for form in (VALUE.encode(), json.dumps(VALUE).encode()[1:-1], TOKEN.encode()))
