"""The whole engine: taking the lead, leading, and ending in order."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from kapelle.core.agent import ProcessRef
from kapelle.core.attempt import PromptState
from kapelle.core.errors import GatewayFailed, LeadLost
from kapelle.core.events import AttemptStarted, LeadGivenUp, LeadTaken, RunSubmitted
from kapelle.core.gateway import Meter
from kapelle.core.ids import RequestId, RunId
from kapelle.core.requests import Pause, Request, Submit
from kapelle.core.run import RUN_TERMINAL, RunState, WorkspaceRules
from kapelle.core.task import Priority, TaskState
from kapelle.engine.leader import Engine, Stop
from kapelle.engine.loop import HEAL
from kapelle.testing.clock import NOON
from kapelle.testing.factories import run_spec, task
from kapelle.testing.fakes import FakeGateway
from kapelle.testing.hosts import BOOT, ScriptedProcess, writes
from kapelle.testing.worlds import SmallWorld

ME = ProcessRef(boot_id=BOOT, pid=7, started="me")


def engine_of(here: SmallWorld) -> Engine:
    return Engine(here.ports, here.leadership, ME)


async def lead(here: SmallWorld, stop: Stop, finished: Callable[[], Awaitable[bool]]) -> None:
    engine = engine_of(here)
    term = await engine.take()
    assert term is not None
    async with asyncio.timeout(10):
        await engine.lead(term, stop, finished)


async def never() -> bool:
    return False


def ended(here: SmallWorld, run_id: RunId) -> Callable[[], Awaitable[bool]]:
    async def finished() -> bool:
        run = await here.store.read(lambda view: view.runs.get(run_id))
        return run is not None and run.state in RUN_TERMINAL

    return finished


async def until(stop: Stop, here: SmallWorld, then: Callable[[], None] = lambda: None) -> None:
    """Lead until the agent of api has its prompt, then do *then* and ask the leader to end."""
    begun = asyncio.Event()
    here.host.plays("api", lambda _process, _text: begun.set())
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(lead(here, stop, never))
        await begun.wait()
        then()
        stop.asked.set()
        await leading


async def test_a_leader_leads_until_there_is_nothing_left_to_wait_for(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec())
    await lead(here, Stop(), ended(here, run_id))
    assert (await here.run(run_id)).state is RunState.COMPLETED
    assert here.repository.files("main")["api.py"] == "1"


async def test_a_leader_that_ends_gives_everything_back(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec())
    await lead(here, Stop(), ended(here, run_id))
    holder = await here.leadership.holder()
    assert holder is not None
    assert holder.given_up
    assert not here.gateway.running
    assert here.host.live() == []
    assert here.git.directories == {}
    assert [type(entry.event) for entry in await here.log() if entry.event.run_id is None] == [LeadTaken, LeadGivenUp]


async def test_a_hint_is_heard_while_leading(here: SmallWorld) -> None:
    run_id = RunId(here.ports.new_id("r"))
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(lead(here, Stop(), ended(here, run_id)))
        await here.hints.listening.wait()
        spec = run_spec(task("api", agent="nobody"))
        request = Request(request_id=RequestId("q-1"), body=Submit(run_id=run_id, spec=spec), principal="", asked_at=NOON)
        await here.store.ask([request])
        here.hints.ring()
        async with asyncio.timeout(HEAL.total_seconds() * 0.9):
            await leading


async def test_requests_are_applied_with_nobody_leading_and_no_agent_is_started(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec())
    await here.ask(Pause(run_id=run_id))
    engine = engine_of(here)
    term = await engine.take()
    assert term is not None
    await engine.apply_requests(term)
    assert len(await here.events(RunSubmitted)) == 1
    assert (await here.run(run_id)).paused
    assert here.host.processes == []
    holder = await here.leadership.holder()
    assert holder is not None
    assert holder.given_up


# --- Planned exits ---


async def test_an_agent_may_finish_its_turn_on_a_planned_exit(here: SmallWorld) -> None:
    await here.submit(run_spec())
    await until(Stop(), here, lambda: writes({"api.py": "1"})(here.process(), ""))
    assert here.host.live() == []
    assert (await here.task()).state is TaskState.VALIDATING
    assert [prompt.state for prompt in await here.prompts()] == [PromptState.ANSWERED]


async def test_a_planned_exit_counts_nothing(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", max_attempts=1)))
    stop = Stop()
    stop.at_once.set()
    await until(stop, here)
    assert here.host.live() == []
    (attempt,) = await here.attempts()
    assert (attempt.crashes, attempt.interruptions, attempt.ended_at) == (0, 0, None)
    assert (await here.task()).state is TaskState.RUNNING
    here.host.plays("api", writes({"api.py": "1"}))
    successor = await here.lead()
    await successor.run_out()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)
    assert here.process().resumed
    assert here.process().prompts[0].text.startswith("You were cut off")


async def test_an_agent_that_does_not_finish_within_the_bound_is_ended(here: SmallWorld) -> None:
    here.set(finish=timedelta(seconds=60))
    await here.submit(run_spec())
    stop = Stop()

    def move_on() -> None:
        asyncio.get_running_loop().call_later(0.3, lambda: here.clock.move(timedelta(seconds=61)))

    await until(stop, here, move_on)
    assert here.host.live() == []
    assert (await here.attempts())[0].crashes == 0


@pytest.mark.parametrize("point", ["prepare", "prepare:done", "run", "start"])
async def test_an_agent_that_is_being_deployed_on_a_planned_exit_is_left_to_the_next_leader(
    here: SmallWorld, point: str
) -> None:
    await here.submit(run_spec(workspace=WorkspaceRules(setup=("true",))))
    here.points.hold(point)
    held, stop = asyncio.Event(), Stop()
    here.points.changed = held.set
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(lead(here, stop, never))
        await held.wait()
        stop.asked.set()
        await leading
    here.points.release(point)
    assert here.host.live() == []
    here.host.otherwise = writes({"api.py": "1"})
    successor = await here.lead()
    await successor.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert len(await here.events(AttemptStarted)) == 1
    assert (await here.attempts())[0].crashes == 0


async def test_nothing_new_is_begun_while_agents_finish_their_turns(here: SmallWorld) -> None:
    here.set(slots=1)
    await here.submit(run_spec(task("api", priority=Priority.HIGH), task("ui")))
    await until(Stop(), here, lambda: writes({"api.py": "1"})(here.process(), ""))
    assert [process.task for process in here.host.processes] == ["api"]


# --- Losing the lead ---


async def test_a_leader_that_loses_the_lead_steps_back(here: SmallWorld) -> None:
    begun = asyncio.Event()
    here.host.plays("api", lambda _process, _text: begun.set())
    await here.submit(run_spec())

    async def leading() -> None:
        with pytest.raises(LeadLost):
            await lead(here, Stop(), never)

    async with asyncio.TaskGroup() as group:
        group.create_task(leading())
        await begun.wait()
        successor = await here.lead()
    assert here.process().alive
    holder = await here.leadership.holder()
    assert holder is not None
    assert (holder.term, holder.given_up) == (successor.term, False)


async def test_an_error_of_an_act_ends_the_leader_and_gives_the_lead_back(here: SmallWorld) -> None:
    def defective(_process: ScriptedProcess, _text: str) -> None:
        raise ZeroDivisionError

    here.host.plays("api", defective)
    await here.submit(run_spec())
    with pytest.raises(ZeroDivisionError):
        await lead(here, Stop(), never)
    holder = await here.leadership.holder()
    assert holder is not None
    assert holder.given_up
    assert not here.gateway.running


async def test_an_agent_that_was_deployed_at_the_last_moment_is_ended_with_the_others(here: SmallWorld) -> None:
    await here.submit(run_spec())
    stop = Stop()
    here.host.starts("api", lambda _: stop.asked.set())
    await lead(here, stop, never)
    assert here.host.live() == []
    here.host.plays("api", writes({"api.py": "1"}))
    successor = await here.lead()
    await successor.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert (await here.attempts())[0].crashes == 0


class Taken(FakeGateway):
    """A gateway whose port somebody else has."""

    async def start(self, meter: Meter) -> str:
        del meter
        raise GatewayFailed("port 4000 cannot be listened on")


async def test_a_leader_that_cannot_begin_gives_the_lead_back(here: SmallWorld) -> None:
    here.replace(gateway=Taken())
    with pytest.raises(GatewayFailed):
        await lead(here, Stop(), never)
    held = await here.leadership.holder()
    assert held is None or held.given_up
