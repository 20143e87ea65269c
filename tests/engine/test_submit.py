from dataclasses import replace

import pytest

from kapelle.core.events import RequestRefused, RunSubmitted, TaskSubmitted
from kapelle.core.ids import RequestId, RunId, TaskId
from kapelle.core.requests import Body, Cancel, Pause, Request, Resume, Retry, Submit
from kapelle.core.run import RunState
from kapelle.core.task import Priority, TaskState, Wait
from kapelle.testing.factories import run_spec, task
from kapelle.testing.worlds import SmallWorld


async def test_an_accepted_run_has_all_its_tasks(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api"), task("ui", needs=("api",))))
    leader = await here.lead()
    await leader.step("submit")
    tasks = await here.tasks()
    assert {name: found.state for name, found in tasks.items()} == {"api": TaskState.PENDING, "ui": TaskState.PENDING}
    assert (tasks["api"].unmet, tasks["ui"].unmet) == (0, 1)
    assert (tasks["api"].waits_for, tasks["ui"].waits_for) == (None, Wait.NEEDS)
    assert (await here.run(run_id)).unfinished == 2


async def test_acceptance_is_told_in_the_log(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api"), task("ui"), name="shop"))
    leader = await here.lead()
    await leader.step("submit")
    assert await here.events(RunSubmitted) == [RunSubmitted(run_id=run_id, name="shop", tasks=2, principal="you")]
    assert [event.name for event in await here.events(TaskSubmitted)] == ["api", "ui"]


async def test_a_run_that_is_submitted_twice_is_accepted_once(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api")))
    again = await here.ask(Submit(run_id=run_id, spec=run_spec(task("api"), task("ui"))))
    leader = await here.lead()
    await leader.step("submit")
    assert await here.refusal(again) is None
    assert list(await here.tasks()) == ["api"]


async def test_a_request_that_is_asked_twice_is_applied_once(here: SmallWorld) -> None:
    request = Request(
        request_id=RequestId("q-1"),
        body=Submit(run_id=RunId(here.ports.new_id("r")), spec=run_spec()),
        principal="you",
        asked_at=here.clock.now(),
    )
    await here.store.ask([request])
    leader = await here.lead()
    await leader.step("submit")
    await here.store.ask([request])
    await leader.step("submit")
    assert len(await here.events(RunSubmitted)) == 1


async def test_requests_are_applied_in_the_order_in_which_they_were_asked(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec())
    await here.ask(Pause(run_id=run_id))
    await here.ask(Resume(run_id=run_id))
    await here.ask(Pause(run_id=run_id))
    leader = await here.lead()
    await leader.step("submit")
    assert (await here.run(run_id)).paused


async def test_a_refused_request_says_why_and_holds_up_no_other(here: SmallWorld) -> None:
    refused = await here.ask(Pause(run_id=RunId("r-nobody")))
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.step("submit")
    assert await here.refusal(refused) == "there is no run r-nobody"
    assert [event.reason for event in await here.events(RequestRefused)] == ["there is no run r-nobody"]
    assert (await here.run(run_id)).state is RunState.RUNNING


NOBODY = RunId("r-nobody")


@pytest.mark.parametrize(
    "body",
    [Cancel(run_id=NOBODY), Pause(run_id=NOBODY), Resume(run_id=NOBODY), Retry(run_id=NOBODY, new_run_id=RunId("r-new"))],
    ids=lambda body: type(body).__name__,
)
async def test_what_is_asked_of_an_unknown_run_is_refused(here: SmallWorld, body: Body) -> None:
    request_id = await here.ask(body)
    leader = await here.lead()
    await leader.step("submit")
    assert await here.refusal(request_id) == "there is no run r-nobody"


@pytest.mark.parametrize("kind", [Cancel, Pause, Resume])
async def test_what_is_asked_of_a_run_that_has_ended_is_refused(
    here: SmallWorld, kind: type[Cancel] | type[Pause] | type[Resume]
) -> None:
    run_id = await here.submit(run_spec(task("api", agent="nobody"), name="shop"))
    leader = await here.lead()
    await leader.run()
    request_id = await here.ask(kind(run_id=run_id))
    await leader.step("submit")
    assert await here.refusal(request_id) == f"run shop ({run_id}) has ended already: it was completed"


async def test_cancelling_a_task_that_is_not_there_is_refused(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec())
    request_id = await here.ask(Cancel(run_id=run_id, task_id=TaskId("t-nobody")))
    leader = await here.lead()
    await leader.step("submit")
    assert await here.refusal(request_id) == "there is no task t-nobody"


async def test_after_requests_the_stages_look_again_at_once_and_then_not(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    assert await leader.step("submit") == here.clock.now()
    assert await leader.step("submit") is None


async def test_more_requests_than_fit_into_one_step_are_all_applied(here: SmallWorld) -> None:
    run_ids = [await here.submit(run_spec(task("api", agent="nobody"), name=f"run {number}")) for number in range(103)]
    leader = await here.lead()
    await leader.run()
    assert {(await here.run(run_id)).state for run_id in (run_ids[0], run_ids[-1])} == {RunState.COMPLETED}


async def test_a_request_whose_commit_was_lost_is_applied_by_the_next_leader(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    here.store.die(commits=1)
    with pytest.raises(Exception, match="before the commit"):
        await leader.step("submit")
    here.store.heal()
    await leader.die()
    successor = await here.lead()
    await successor.step("submit")
    assert (await here.run(run_id)).unfinished == 1
    assert len(await here.events(RunSubmitted)) == 1


async def test_a_request_that_was_applied_before_the_leader_died_is_not_applied_again(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    here.store.die(commits=1, after=True)
    with pytest.raises(Exception, match="after the commit"):
        await leader.step("submit")
    here.store.heal()
    await leader.die()
    successor = await here.lead()
    await successor.step("submit")
    assert len(await here.events(RunSubmitted)) == 1


async def test_priority_is_a_head_start_in_the_queue(here: SmallWorld) -> None:
    await here.submit(run_spec(task("slow", priority=Priority.LOW), task("quick", priority=Priority.CRITICAL)))
    leader = await here.lead()
    await leader.step("submit")
    tasks = await here.tasks()
    assert tasks["quick"].rank < tasks["slow"].rank


async def test_the_specification_is_kept_as_it_was_submitted(here: SmallWorld) -> None:
    spec = replace(run_spec(task("api", prompt="do {{ inputs.what }}")), inputs='{"what": "it"}')
    run_id = await here.submit(spec)
    leader = await here.lead()
    await leader.step("submit")
    assert (await here.run(run_id)).spec == spec
