"""What a person asks of one agent at work, or of one task: freeze, thaw, stop, pause, resume."""

from datetime import timedelta

import pytest

from kapelle.core.agent import Agent
from kapelle.core.attempt import Outcome
from kapelle.core.errors import HostFailed
from kapelle.core.gate import Check, Gate
from kapelle.core.requests import Cancel, Pause, Resume
from kapelle.core.steering import Freeze, StopAgent, Thaw
from kapelle.core.steering_events import (
    AgentFrozen,
    AgentNotFrozen,
    AgentStopAsked,
    AgentThawed,
    TaskPaused,
    TaskResumed,
)
from kapelle.core.task import TaskState, Wait
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import writes
from kapelle.testing.mischief import does_well
from kapelle.testing.worlds import Leader, SmallWorld

GATES = (Gate(name="check", checks=(Check(name="test", run="make test"),)),)


async def agent(here: SmallWorld) -> Agent:
    return (await here.store.read(lambda view: view.agents.live()))[0]


async def at_work(here: SmallWorld, **changes: object) -> tuple[Leader, Agent]:
    await here.submit(run_spec(task(**changes)))
    leader = await here.lead()
    await leader.run()
    return leader, await agent(here)


async def freeze(here: SmallWorld, leader: Leader, found: Agent) -> None:
    await here.ask(Freeze(run_id=found.run_id, agent_id=found.agent_id))
    await leader.run()


async def test_a_frozen_agent_stands_still_and_its_time_limit_with_it(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await freeze(here, leader, found)
    assert here.sandbox.frozen == {found.agent_id}
    assert here.host.stopped_clocks == {found.folder}
    here.clock.move(timedelta(hours=5))
    await here.ask(Thaw(run_id=found.run_id, agent_id=found.agent_id))
    await leader.run()

    assert here.sandbox.frozen == here.host.stopped_clocks == set()
    assert (await agent(here)).deadline_at == found.deadline_at + timedelta(hours=5)
    assert [event.principal for event in await here.events(AgentFrozen)] == ["you"]
    assert [event.principal for event in await here.events(AgentThawed)] == ["you"]
    does_well(here.process())
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_a_new_leader_keeps_a_frozen_agent_frozen(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await freeze(here, leader, found)
    await leader.die()
    here.host.processes[0].ended = None
    # Another process, which knows what is in the store and nothing more.
    here.ports.holds.forget()
    here.sandbox.frozen.clear()

    successor = await here.lead()
    assert here.sandbox.frozen == {found.agent_id}
    await successor.run()
    assert here.sandbox.frozen == {found.agent_id}
    await here.ask(Thaw(run_id=found.run_id, agent_id=found.agent_id))
    await successor.run()
    assert here.sandbox.frozen == set()


async def test_a_freeze_that_was_only_asked_for_is_done_by_the_next_leader(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(Freeze(run_id=found.run_id, agent_id=found.agent_id))
    await leader.step("submit")
    await leader.die()
    here.host.processes[0].ended = None

    successor = await here.lead()
    await successor.run()
    assert here.sandbox.frozen == {found.agent_id}
    assert len(await here.events(AgentFrozen)) == 1


async def test_who_looks_at_a_workspace_and_who_freezes_its_agent_do_not_thaw_each_other(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "broken"}))
    here.points.hold("commit")
    await here.submit(run_spec(gates=GATES))
    leader = await here.lead()
    await leader.run()
    found = await agent(here)
    assert here.sandbox.frozen == {found.agent_id}
    await freeze(here, leader, found)
    # The workspace was looked at, and somebody wants it to stay still.
    here.points.release("commit")
    await leader.run()
    assert here.sandbox.frozen == {found.agent_id}
    assert (await here.task()).state is TaskState.RUNNING


async def test_a_thaw_leaves_still_what_is_looked_at(here: SmallWorld) -> None:
    leader, found = await at_work(here, gate="check")
    await freeze(here, leader, found)
    here.points.hold("commit")
    does_well(here.process())
    await leader.run()
    await here.ask(Thaw(run_id=found.run_id, agent_id=found.agent_id))
    await leader.run()
    assert (await agent(here)).frozen_at is None
    assert here.sandbox.frozen == {found.agent_id}
    here.points.release("commit")
    await leader.run_out()
    assert here.sandbox.frozen == set()


async def test_nothing_is_said_to_a_frozen_agent(here: SmallWorld) -> None:
    leader, found = await at_work(here, gate="check")
    await freeze(here, leader, found)
    here.process().write("api.py", "broken")
    here.process().done()
    await leader.run()
    assert (await here.task()).state is TaskState.RUNNING
    assert len(here.process().prompts) == 1
    await here.ask(Thaw(run_id=found.run_id, agent_id=found.agent_id))
    await leader.run()
    assert len(here.process().prompts) == 2


async def test_what_cannot_be_frozen_goes_on_and_that_is_said(here: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise HostFailed("it is stuck")

    leader, found = await at_work(here)
    monkeypatch.setattr(here.sandbox, "freeze", fails)
    await freeze(here, leader, found)
    assert (await agent(here)).frozen_by == ""
    assert here.host.stopped_clocks == set()
    assert [event.reason.splitlines()[0] for event in await here.events(AgentNotFrozen)] == ["it is stuck"]


async def test_a_frozen_agent_can_be_cancelled(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await freeze(here, leader, found)
    await here.ask(Cancel(run_id=found.run_id))
    await leader.run_out()
    assert here.sandbox.frozen == set()
    assert here.host.live() == []


async def test_a_stopped_agent_ends_its_turn_and_its_task_goes_on_to_the_gate_alone(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(StopAgent(run_id=found.run_id, agent_id=found.agent_id))
    await leader.run()
    assert here.host.live() != []
    assert (await agent(here)).ends_at == here.clock.now() + here.ports.settings.finish
    does_well(here.process())
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert [event.at_once for event in await here.events(AgentStopAsked)] == [False]


async def test_a_stopped_agent_is_ended_within_a_bound_and_its_task_waits(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    here.process().write("api.py", "half")
    await here.ask(StopAgent(run_id=found.run_id, agent_id=found.agent_id))
    await leader.run()
    here.clock.move(here.ports.settings.finish)
    await leader.run()
    waiting = await here.task()
    assert (waiting.state, waiting.waits_for, waiting.attempts, waiting.paused) == (TaskState.RUNNING, Wait.PAUSED, 1, True)
    assert here.host.live() == []
    here.clock.move(timedelta(hours=3))
    await leader.run()
    assert here.host.live() == []

    await here.ask(Resume(run_id=found.run_id, task_id=waiting.task_id))
    await leader.run()
    # In the same conversation, and the same workspace.
    assert here.process().resumed
    assert here.process().directory.files["api.py"] == "half"
    here.process().write("api.py", "whole")
    here.process().done()
    await leader.run_out()
    done = await here.task()
    assert (done.state, done.attempts) == (TaskState.COMPLETED, 1)
    assert [(attempt.outcome, attempt.crashes) for attempt in await here.attempts()] == [(Outcome.SUCCEEDED, 0)]


async def test_an_agent_is_stopped_at_once_when_that_is_asked(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(StopAgent(run_id=found.run_id, agent_id=found.agent_id, at_once=True))
    await leader.run()
    assert here.host.live() == []
    assert (await here.task()).waits_for is Wait.PAUSED


async def test_a_stopped_program_without_a_conversation_gives_its_attempt_back(here: SmallWorld) -> None:
    leader, found = await at_work(here, agent="once", max_attempts=1)
    await here.ask(StopAgent(run_id=found.run_id, agent_id=found.agent_id, at_once=True))
    await leader.run()
    waiting = await here.task()
    assert (waiting.state, waiting.waits_for, waiting.attempts) == (TaskState.PENDING, Wait.PAUSED, 0)
    here.clock.move(timedelta(hours=1))
    await leader.run()
    assert here.host.live() == []
    await here.ask(Resume(run_id=found.run_id))
    await leader.run()
    does_well(here.process())
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.STOPPED, Outcome.SUCCEEDED]


async def test_a_stop_outlives_the_leader(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(StopAgent(run_id=found.run_id, agent_id=found.agent_id))
    await leader.step("submit")
    await leader.die()
    successor = await here.lead()
    await successor.run()
    here.clock.move(here.ports.settings.finish)
    await successor.run()
    assert here.host.live() == []
    assert (await here.task()).waits_for is Wait.PAUSED


async def test_what_has_ended_cannot_be_steered(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    does_well(here.process())
    await leader.run_out()
    for body in (
        Freeze(run_id=found.run_id, agent_id=found.agent_id),
        Thaw(run_id=found.run_id, agent_id=found.agent_id),
        StopAgent(run_id=found.run_id, agent_id=found.agent_id),
    ):
        asked = await here.ask(body)
        await leader.run()
        assert "has ended" in str(await here.refusal(asked))


async def test_a_paused_task_begins_nothing_until_it_is_resumed(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec(task("api"), task("ui")))
    leader = await here.lead()
    await leader.step("submit")
    task_id = await here.task_id()
    await here.ask(Pause(run_id=run_id, task_id=task_id))
    await leader.run()
    assert [process.task for process in here.host.processes] == ["ui"]
    assert (await here.task()).waits_for is Wait.PAUSED

    await here.ask(Resume(run_id=run_id, task_id=task_id))
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED
    assert [event.principal for event in await here.events(TaskPaused)] == ["you"]
    assert [event.principal for event in await here.events(TaskResumed)] == ["you"]


async def test_a_paused_task_waits_for_what_it_needs_first(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api"), task("ui", needs=("api",))))
    leader = await here.lead()
    await leader.run()
    await here.ask(Pause(run_id=run_id, task_id=await here.task_id("ui")))
    await leader.run()
    assert (await here.task("ui")).waits_for is Wait.NEEDS
    does_well(here.process())
    await leader.run_out()
    assert (await here.task("ui")).waits_for is Wait.PAUSED
    await here.ask(Resume(run_id=run_id))
    await leader.run()
    assert (await here.task("ui")).state is TaskState.RUNNING
