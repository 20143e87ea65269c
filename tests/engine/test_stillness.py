"""While a workspace is looked at from outside, nothing of its agent goes on."""

import pytest

from kapelle.core.errors import HostFailed
from kapelle.core.gate import Check, Gate
from kapelle.core.isolation_events import SandboxLeft
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec
from kapelle.testing.hosts import writes
from kapelle.testing.worlds import SmallWorld

GATES = (Gate(name="check", checks=(Check(name="test", run="make test"),)),)


async def live(here: SmallWorld) -> set[str]:
    return {str(agent.agent_id) for agent in await here.store.read(lambda view: view.agents.live())}


@pytest.mark.parametrize("point", ["commit", "run", "put"])
async def test_from_the_commit_to_the_end_of_the_gate_the_agent_is_held_still(here: SmallWorld, point: str) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    here.points.hold(point)
    await here.submit(run_spec(gates=GATES))
    leader = await here.lead()
    await leader.run()
    assert here.sandbox.frozen & await live(here) == await live(here) != set()

    here.points.release(point)
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert here.sandbox.frozen == set()


async def test_what_a_dead_leader_held_still_is_let_go_by_the_next(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    here.points.hold("commit")
    await here.submit(run_spec(gates=GATES))
    leader = await here.lead()
    await leader.run()
    await leader.die()
    # It had no time to.
    here.sandbox.frozen |= await live(here)
    here.points.heal()
    here.store.heal()

    successor = await here.lead()
    await successor.run_out()
    assert here.sandbox.frozen == set()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_what_cannot_be_let_go_keeps_nobody_from_leading(here: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    await leader.die()
    here.points.heal()
    here.store.heal()

    async def fails(*_: object) -> None:
        raise HostFailed("it is stuck")

    monkeypatch.setattr(here.sandbox, "thaw", fails)
    successor = await here.lead()
    await successor.run()
    assert [event.reason.splitlines()[0] for event in await here.events(SandboxLeft)] == ["it is stuck"]
