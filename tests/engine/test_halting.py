import asyncio
from datetime import timedelta

import pytest

from kapelle.core.brake_events import HaltBegun, HaltLifted
from kapelle.core.budget import Allowance
from kapelle.core.conversation import Trouble
from kapelle.core.errors import StoreFailed
from kapelle.core.events import AttemptStarted, ModelCalled
from kapelle.core.gateway import Upstream
from kapelle.core.hours import WorkingHours, parse_window
from kapelle.core.ids import RequestId, RunId
from kapelle.core.requests import Halt, Request, Unhalt
from kapelle.core.run import Limits
from kapelle.core.task import TaskState, Wait
from kapelle.testing.factories import run_spec, task
from kapelle.testing.fakes import HELD, Flight
from kapelle.testing.worlds import Leader, SmallWorld


async def ask(here: SmallWorld, body: Halt | Unhalt, by: str = "person:you") -> RequestId:
    request_id = RequestId(here.ports.new_id("q"))
    await here.store.ask([Request(request_id=request_id, body=body, principal=by, asked_at=here.clock.now())])
    return request_id


def halt(reason: str = "") -> Halt:
    return Halt(run_id=RunId(""), reason=reason)


def unhalt() -> Unhalt:
    return Unhalt(run_id=RunId(""))


async def done(here: SmallWorld, leader: Leader, *names: str) -> None:
    await leader.run()
    for process in here.host.live():
        process.write(f"{process.task}.py", "1")
        process.done("done")
    await leader.run_out()
    for name in names or ("api",):
        found = await here.task(name)
        assert (found.state, found.attempts) == (TaskState.COMPLETED, 1)


@pytest.mark.parametrize("upstream", [Upstream(rehearsal="r"), Upstream(bypass=True)])
async def test_agents_at_work_are_stopped_and_go_on_in_their_conversation(here: SmallWorld, upstream: Upstream) -> None:
    await here.submit(run_spec(task("api", max_attempts=1), task("ui", max_attempts=1), upstream=upstream))
    leader = await here.lead()
    await leader.run()
    token = here.process("api").token
    await ask(here, halt("the bill"))
    await leader.run_out()
    assert not here.host.live()
    for name in ("api", "ui"):
        waiting = await here.task(name)
        assert (waiting.state, waiting.waits_for) == (TaskState.RUNNING, Wait.PAUSED)
        assert waiting.detail.startswith("halted by person:you since ")
        assert waiting.detail.endswith("(the bill): kapelle unhalt")
    assert here.gateway.call(token, usd=1.0) == "unknown token"
    await ask(here, unhalt())
    await done(here, leader, "api", "ui")
    attempts = [*await here.attempts("api"), *await here.attempts("ui")]
    assert [(attempt.number, attempt.crashes, attempt.interruptions) for attempt in attempts] == [(1, 0, 0)] * 2
    assert len(here.host.processes) == 4
    # What was read is not said again; a prompt to go on is.
    assert len(await here.prompts("api")) == 2
    assert [event.principal for event in await here.events(HaltBegun)] == ["person:you"]
    assert len(await here.events(HaltLifted)) == 1


async def test_no_call_passes_from_the_moment_on_and_none_that_waits_for_another(here: SmallWorld) -> None:
    here.set(slots=10)
    specs = [task(name, max_attempts=1) for name in ("api", "ui")]
    await here.submit(run_spec(*specs, limits=Limits(budget=Allowance(usd=1.0))))
    leader = await here.lead()
    await leader.run()
    flight = here.gateway.begin(here.process("api").token, guess=0.8)
    assert isinstance(flight, Flight)
    assert here.gateway.begin(here.process("ui").token, guess=0.8) == HELD
    waiting = asyncio.ensure_future(leader.meter.room())
    await leader.settle()
    # Agents take their time to end; no call of theirs passes meanwhile.
    here.points.hold("end")
    await ask(here, halt())
    for _ in range(3):
        await leader.round()
    await waiting
    refusal = here.gateway.begin(here.process("ui").token)
    assert isinstance(refusal, str)
    assert refusal.startswith("halted by person:you since ")
    # The one that was on its way is booked.
    here.gateway.end(flight, usd=0.7)
    here.points.release("end")
    await leader.run_out()
    (overview,) = await here.store.read(lambda view: view.runs.overviews())
    assert (overview.spend.cost_usd, overview.spend.calls) == (0.7, 1)


async def test_a_call_that_was_let_through_and_has_not_gone_out_is_refused_after_all(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", max_attempts=1), limits=Limits(budget=Allowance(usd=1.0, turns=1))))
    leader = await here.lead()
    await leader.run()
    flight = here.gateway.begin(here.process().token, guess=0.8)
    assert isinstance(flight, Flight)
    await leader.run()
    here.points.hold("end")
    await ask(here, halt())
    await leader.step("submit")
    # It is acknowledged from here on, whatever the other stages have seen of it.
    refusal = here.gateway.goes_out(flight)
    assert (refusal or "").startswith("halted by person:you since ")
    here.points.release("end")
    await leader.run_out()
    # What was kept back for it is free again, and it is counted nowhere: not even as a turn.
    assert await here.store.read(lambda view: list(view.ledger.on_their_way())) == []
    assert await here.events(ModelCalled) == []
    await ask(here, unhalt())
    await leader.run()
    assert here.gateway.call(here.process().token, usd=0.5) is None
    (overview,) = await here.store.read(lambda view: view.runs.overviews())
    await done(here, leader)
    assert overview.spend.calls == 0


async def test_a_halt_that_could_not_be_written_down_holds_nobody_up(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    request_id = await ask(here, halt())
    here.store.refuse(1)
    with pytest.raises(StoreFailed):
        await leader.step("submit")
    here.store.heal()
    await here.store.transact(lambda tx: tx.requests.settle(request_id, tx.now, "given up"), term=leader.term)
    await leader.run()
    assert here.gateway.call(here.process().token, usd=0.5) is None


async def test_an_agent_that_hears_of_it_by_its_call_costs_no_attempt(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    here.points.hold("end")
    await ask(here, halt())
    for _ in range(3):
        await leader.round()
    here.process().trouble(Trouble.HALTED, here.gateway.call(here.process().token, usd=1.0) or "")
    here.points.release("end")
    await leader.run_out()
    await ask(here, unhalt())
    await done(here, leader)


async def test_a_halt_that_is_lifted_before_the_agent_has_ended_its_turn_costs_nothing_either(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    here.process().trouble(Trouble.HALTED, "halted by person:you")
    await done(here, leader)


async def test_nothing_begins_while_it_is_halted_and_restarts_change_nothing(here: SmallWorld) -> None:
    leader = await here.lead()
    await ask(here, halt())
    await here.submit(run_spec(task("api", max_attempts=1), task("chore", agent="nobody", gate=None, max_attempts=1)))
    await leader.run_out()
    await leader.die()
    leader = await here.lead()
    await leader.run_out()
    assert not here.host.processes
    assert {found.waits_for for found in (await here.tasks()).values()} == {Wait.PAUSED}
    assert await here.events(AttemptStarted) == []
    await ask(here, unhalt())
    await done(here, leader)


async def test_it_is_halted_although_nobody_leads(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    await ask(here, halt())
    await leader.step("submit")
    await leader.die()
    leader = await here.lead()
    # From its first moment on, whatever it has looked at.
    agent = (await here.store.read(lambda view: view.agents.live()))[0]
    assert (await here.store.read(lambda view: view.brakes.halt())) is not None
    await leader.run_out()
    assert (await here.task()).waits_for is Wait.PAUSED
    assert (await here.store.read(lambda view: view.agents.live())) == [], agent
    await ask(here, unhalt())
    await done(here, leader)


async def test_work_that_is_done_is_gated_and_merged_all_the_same(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    here.process().write("api.py", "1")
    here.process().done("done")
    await leader.step("execute")
    await ask(here, halt())
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_an_agent_without_a_conversation_ends_what_it_has_begun(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", agent="once", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    await ask(here, halt())
    await leader.run()
    assert len(here.host.live()) == 1
    here.process().write("api.py", "1")
    here.process().exit(0)
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_only_a_person_halts_and_only_what_is_not_halted(here: SmallWorld) -> None:
    leader = await here.lead()
    asked = [await ask(here, unhalt()), await ask(here, halt(), "agent:g-1"), await ask(here, halt())]
    asked += [await ask(here, halt()), await ask(here, unhalt(), "agent:g-1")]
    await leader.run()
    said = [await here.refusal(request_id) for request_id in asked]
    assert said[0] == "nothing is halted"
    assert (said[1] or "").startswith("only a person can answer")
    assert said[2] is None
    assert (said[3] or "").startswith("everything is halted already: halted by person:you since ")
    assert (said[4] or "").startswith("only a person can answer")


# --- Working hours ---

HOURS = WorkingHours(windows=(parse_window("daily 08:00-18:00"),), zone="Europe/Berlin")


async def at(here: SmallWorld, hour: int) -> None:
    here.clock.move_to((here.clock.now() + timedelta(days=1)).replace(hour=hour, minute=0, second=0, microsecond=0))


async def test_nothing_begins_outside_of_the_hours_and_everything_by_itself_within(here: SmallWorld) -> None:
    await at(here, 20)
    leader = await here.lead()
    await here.submit(run_spec(task("api", max_attempts=1), hours=HOURS))
    await here.submit(run_spec(task("night", max_attempts=1), name="another"))
    later = await leader.run()
    waiting = await here.task()
    assert waiting.waits_for is Wait.SCHEDULE
    assert later == waiting.due_at
    assert later is not None
    assert waiting.detail == f"outside of the working hours until {later:%Y-%m-%d %H:%M} UTC"
    # Another project's run goes on.
    assert (await here.task("night")).state is TaskState.RUNNING
    here.clock.move_to(later)
    await done(here, leader, "api", "night")


async def test_at_the_end_of_the_hours_a_call_ends_and_the_next_is_refused(here: SmallWorld) -> None:
    await at(here, 12)
    leader = await here.lead()
    await here.submit(run_spec(task("api", max_attempts=1), hours=HOURS))
    await leader.run()
    flight = here.gateway.begin(here.process().token)
    assert isinstance(flight, Flight)
    await at(here, 20)
    await leader.run()
    assert len(here.host.live()) == 1, "what it does without its model it may end"
    here.gateway.end(flight, usd=0.5)
    refusal = here.gateway.call(here.process().token, usd=0.5)
    assert (refusal or "").startswith("outside of the working hours until ")
    here.process().trouble(Trouble.HALTED, refusal or "")
    later = await leader.run()
    waiting = await here.task()
    assert (waiting.state, waiting.waits_for, waiting.due_at) == (TaskState.RUNNING, Wait.SCHEDULE, later)
    assert not here.host.live()
    assert later is not None
    here.clock.move_to(later)
    await done(here, leader)
