"""A clock that is set back while nobody leads: what was to happen soon happens soon."""

from datetime import timedelta

from kapelle.core.account import AccountState
from kapelle.core.conversation import Trouble
from kapelle.core.events import ChangeMerged, ClockSetBack, TargetDelivered
from kapelle.core.gateway import Upstream
from kapelle.core.merge import MergeRules
from kapelle.core.task import TaskState, Wait
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import Script, ScriptedProcess, hangs, writes
from kapelle.testing.worlds import Leader, SmallWorld

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


async def set_back(here: SmallWorld, leader: Leader) -> Leader:
    """Let the leader die, somebody set the clock back by a day, and another lead."""
    await leader.die()
    here.clock.jump(-DAY)
    return await here.lead()


def limited(here: SmallWorld, resets_in: timedelta | None) -> Script:
    def script(process: ScriptedProcess, _: str) -> None:
        resets_at = None if resets_in is None else here.clock.now() + resets_in
        told = here.gateway.fail(process.token, Trouble.USAGE_LIMIT, "You've hit your usage limit", resets_at=resets_at)
        process.trouble(Trouble.USAGE_LIMIT, f"API Error: kapelle limit: {told}")

    return script


async def test_a_task_is_tried_again_when_it_would_have_been(here: SmallWorld) -> None:
    here.host.plays("api", hangs(), writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.process().time_out()
    await leader.run()
    due_at = (await here.task()).due_at
    assert due_at is not None
    rest = due_at - here.clock.now()

    leader = await set_back(here, leader)
    await leader.run()
    waiting = await here.task()
    assert (waiting.waits_for, waiting.due_at) == (Wait.RETRY, here.clock.now() + rest)
    assert [event.seconds for event in await here.events(ClockSetBack)] == [DAY.total_seconds()]

    here.clock.move(rest)
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_a_change_waits_no_longer_for_others_than_it_would_have(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec(merge=MergeRules(batch=8, wait=HOUR)))
    leader = await here.lead()
    await leader.run()
    assert await here.events(ChangeMerged) == []

    leader = await set_back(here, leader)
    await leader.run()
    assert await here.events(TargetDelivered) == []
    here.clock.move(HOUR)
    await leader.run()
    assert len(await here.events(TargetDelivered)) == 1


async def test_a_limit_that_ends_nobody_knows_when_is_tried_when_it_would_have_been(here: SmallWorld) -> None:
    here.credentials.known["env:KEY"] = "secret-1"
    here.host.plays("api", limited(here, None))
    await here.submit(run_spec(upstream=Upstream(credential="env:KEY")))
    leader = await here.lead()
    await leader.run()
    (before,) = await here.store.read(lambda view: view.accounts.not_open())
    assert before.next_at is not None

    leader = await set_back(here, leader)
    await leader.run()
    (account,) = await here.store.read(lambda view: view.accounts.not_open())
    assert account.next_at == before.next_at - DAY
    assert (await here.task()).due_at == account.next_at


async def test_a_limit_ends_when_the_api_said(here: SmallWorld) -> None:
    here.credentials.known["env:KEY"] = "secret-1"
    here.host.plays("api", limited(here, 30 * HOUR))
    await here.submit(run_spec(upstream=Upstream(credential="env:KEY")))
    leader = await here.lead()
    await leader.run()
    (before,) = await here.store.read(lambda view: view.accounts.not_open())

    leader = await set_back(here, leader)
    await leader.run()
    (account,) = await here.store.read(lambda view: view.accounts.not_open())
    assert (account.state, account.next_at, account.resets_at) == (AccountState.LIMITED, before.next_at, before.resets_at)
    assert (await here.task()).due_at == account.next_at


async def test_a_clock_that_was_set_forward_needs_nothing_moved(here: SmallWorld) -> None:
    here.host.plays("api", hangs(), writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.process().time_out()
    await leader.run()
    assert (await here.task()).waits_for is Wait.RETRY
    await leader.die()
    here.clock.jump(DAY)
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert await here.events(ClockSetBack) == []


async def test_what_is_pending_and_waits_for_nothing_is_left_alone(here: SmallWorld) -> None:
    here.set(slots=0)
    await here.submit(run_spec(task("api")))
    leader = await here.lead()
    await leader.run()
    before = await here.task()
    leader = await set_back(here, leader)
    await leader.run()
    assert await here.task() == before
