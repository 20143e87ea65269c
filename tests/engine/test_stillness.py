"""While a workspace is looked at from outside, nothing of its agent goes on."""

import pytest

from kapelle.core.agent import ProcessRef
from kapelle.core.errors import HostFailed, NotStill
from kapelle.core.events import TaskWaited
from kapelle.core.gate import Check, Gate
from kapelle.core.isolation import Place
from kapelle.core.isolation_events import SandboxLeft
from kapelle.core.task import TaskState, Wait
from kapelle.testing.factories import run_spec, task
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


async def nothing(_: ProcessRef) -> None:
    pass


class Restless:
    """What a process that waits for a disk does to who would hold it still: it takes too long, so many times."""

    def __init__(self, here: SmallWorld, times: int) -> None:
        self.here = here
        self.left = times
        self.freeze = here.sandbox.freeze

    async def __call__(self, place: Place, process: ProcessRef | None) -> None:
        if self.left:
            self.left -= 1
            raise NotStill("what runs in a group does not stand still")
        await self.freeze(place, process)


async def test_what_does_not_stand_still_is_tried_again_and_costs_no_attempt(
    here: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    monkeypatch.setattr(here.sandbox, "freeze", Restless(here, 2))
    await here.submit(run_spec(task(max_attempts=1), gates=GATES))
    leader = await here.lead()
    due = await leader.run()
    waiting = await here.task()
    assert (waiting.state, waiting.waits_for) == (TaskState.VALIDATING, Wait.RETRY)
    assert waiting.due_at == due != None  # noqa: E711  # both at once
    assert "stand still" in waiting.detail
    await leader.run()
    assert await here.task() == waiting

    await leader.run_out()
    found = await here.task()
    assert (found.state, found.attempts) == (TaskState.COMPLETED, 1)
    assert len(await here.attempts()) == 1
    # Once, however often it is tried, and when it is over.
    waits = [event.waits_for for event in await here.events(TaskWaited)]
    assert waits == [Wait.RETRY, None]


async def test_a_conflict_waits_until_its_agent_stands_still_and_lets_others_go_first(
    here: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.host.plays("a", writes({"shared.py": "of a"}))
    here.host.plays("b", writes({"shared.py": "of b"}), writes({"shared.py": "of both"}))
    here.host.plays("c", writes({"other.py": "of c"}))
    here.points.hold("merge")
    # What an agent is to do is done, and it is there for a moment longer.
    monkeypatch.setattr(here.host, "close_input", nothing)
    here.points.hold("end")
    await here.submit(run_spec(task("a"), task("b"), task("c"), gates=GATES))
    leader = await here.lead()
    await leader.run()
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.MERGING}
    monkeypatch.setattr(here.sandbox, "freeze", Restless(here, 1))
    here.points.release("merge")
    await leader.run()
    states = {name: found.state for name, found in (await here.tasks()).items()}
    assert states == {"a": TaskState.COMPLETED, "b": TaskState.MERGING, "c": TaskState.COMPLETED}
    assert (await here.task("b")).waits_for is Wait.RETRY

    here.points.release("end")
    await leader.run_out()
    assert here.repository.files("main")["shared.py"] == "of both"
    found = await here.task("b")
    assert (found.state, found.attempts) == (TaskState.COMPLETED, 1)
