import pytest

from kapelle.core.ids import RunId
from kapelle.core.requests import Approve, Cancel, Retry
from kapelle.core.run import RunState
from kapelle.core.task import OnFailure, Task, TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import answers, crashes, writes
from kapelle.testing.worlds import Leader, SmallWorld


@pytest.fixture
def new(here: SmallWorld) -> RunId:
    """The id of the run that a retry becomes."""
    return RunId(here.ports.new_id("r"))


async def of_run(here: SmallWorld, run_id: RunId) -> dict[str, Task]:
    found = await here.store.read(lambda view: view.tasks.of_run(run_id))
    return {entry.name: entry for entry in found}


async def failed_run(here: SmallWorld) -> tuple[Leader, RunId]:
    """A run in which plan completed, api failed, ui failed for want of it, and docs was not concerned."""
    here.host.plays("plan", writes({"plan.md": "1"}, "the plan", result='{"steps": 3}'))
    here.host.plays("api", *[crashes()] * 3)
    here.host.plays("docs", writes({"docs.md": "1"}))
    run_id = await here.submit(
        run_spec(
            task("plan"),
            task("api", needs=("plan",), prompt="{{ tasks.plan.summary }}", max_attempts=1),
            task("ui", needs=("api",), max_attempts=1),
            task("docs"),
        )
    )
    leader = await here.lead()
    await leader.run_out()
    assert (await here.run(run_id)).state is RunState.FAILED
    return leader, run_id


async def test_retry_submits_what_did_not_complete_as_a_new_run(here: SmallWorld, new: RunId) -> None:
    leader, run_id = await failed_run(here)
    old = await of_run(here, run_id)
    await here.ask(Retry(run_id=run_id, new_run_id=new))
    await leader.step("submit")
    again = await of_run(here, new)
    assert list(again) == ["api", "ui"]
    assert {name: entry.retry_of for name, entry in again.items()} == {name: old[name].task_id for name in again}
    assert (again["api"].unmet, again["ui"].unmet) == (0, 1)


async def test_what_is_retried_sees_what_was_completed_before(here: SmallWorld, new: RunId) -> None:
    leader, run_id = await failed_run(here)
    await here.ask(Retry(run_id=run_id, new_run_id=new))
    here.host.plays("api", writes({"api.py": "1"}))
    here.host.plays("ui", writes({"ui.py": "1"}))
    await leader.run_out()
    assert here.host.of_task("api")[-1].prompts[0].text == "the plan"
    assert (await here.run(new)).state is RunState.COMPLETED
    assert set(here.repository.files("main")) == {"README.md", "plan.md", "docs.md", "api.py", "ui.py"}


async def test_one_task_is_retried_with_what_needs_it(here: SmallWorld, new: RunId) -> None:
    here.host.plays("api", *[crashes()] * 3)
    here.host.plays("other", *[crashes()] * 3)
    run_id = await here.submit(run_spec(task("api", max_attempts=1), task("ui", needs=("api",)), task("other", max_attempts=1)))
    leader = await here.lead()
    await leader.run_out()
    await here.ask(Retry(run_id=run_id, new_run_id=new, task_id=await here.task_id("api")))
    await leader.step("submit")
    assert list(await of_run(here, new)) == ["api", "ui"]


async def test_a_retried_task_never_runs_before_what_it_needs_is_met(here: SmallWorld, new: RunId) -> None:
    leader, run_id = await failed_run(here)
    await here.ask(Retry(run_id=run_id, new_run_id=new, task_id=await here.task_id("ui")))
    await leader.run()
    again = await of_run(here, new)
    assert again["ui"].state is TaskState.PENDING
    assert "api" in again


async def test_a_need_that_may_fail_is_not_retried_with_the_task(here: SmallWorld, new: RunId) -> None:
    here.host.plays("lint", *[crashes()] * 3)
    here.host.plays("api", *[crashes()] * 3)
    run_id = await here.submit(
        run_spec(task("lint", max_attempts=1, on_failure=OnFailure.CONTINUE), task("api", needs=("lint",), max_attempts=1))
    )
    leader = await here.lead()
    await leader.run_out()
    await here.ask(Retry(run_id=run_id, new_run_id=new, task_id=await here.task_id("api")))
    await leader.run()
    again = await of_run(here, new)
    assert list(again) == ["api"]
    assert again["api"].state is TaskState.RUNNING


async def test_a_run_that_completed_cannot_be_retried(here: SmallWorld, new: RunId) -> None:
    run_id = await here.submit(run_spec(task("api", agent="nobody"), name="shop"))
    leader = await here.lead()
    await leader.run()
    request_id = await here.ask(Retry(run_id=run_id, new_run_id=new))
    await leader.step("submit")
    refusal = await here.refusal(request_id)
    assert refusal == "nothing in run shop can be retried: all of it completed, or is still going on"


async def test_a_retry_that_is_asked_twice_makes_one_run(here: SmallWorld, new: RunId) -> None:
    leader, run_id = await failed_run(here)
    await here.ask(Retry(run_id=run_id, new_run_id=new))
    second = await here.ask(Retry(run_id=run_id, new_run_id=new))
    await leader.step("submit")
    assert await here.refusal(second) is None
    assert (await here.run(new)).unfinished == 2


async def test_a_retry_begins_from_the_commit_that_is_given(here: SmallWorld, new: RunId) -> None:
    leader, run_id = await failed_run(here)
    await here.ask(Retry(run_id=run_id, new_run_id=new, base=here.target))
    await leader.step("submit")
    assert (await here.run(new)).spec.base == here.target


async def test_what_was_approved_once_needs_no_approval_in_a_retry(here: SmallWorld, new: RunId) -> None:
    run_id = await here.submit(run_spec(task("api", approval=True)))
    leader = await here.lead()
    await leader.step("submit")
    await here.ask(Approve(run_id=run_id, task_id=await here.task_id()))
    await leader.run()
    await here.ask(Cancel(run_id=run_id))
    await here.ask(Retry(run_id=run_id, new_run_id=new))
    await leader.run()
    assert (await of_run(here, new))["api"].state is TaskState.RUNNING


async def test_a_retry_of_a_retry_goes_back_to_the_last_one(here: SmallWorld, new: RunId) -> None:
    leader, run_id = await failed_run(here)
    await here.ask(Retry(run_id=run_id, new_run_id=new))
    here.host.plays("api", *[crashes()] * 3)
    await leader.run_out()
    newest = RunId(here.ports.new_id("r"))
    await here.ask(Retry(run_id=new, new_run_id=newest))
    here.host.plays("api", answers("nothing to do"))
    await leader.run_out()
    last, before = await of_run(here, newest), await of_run(here, new)
    assert last["api"].retry_of == before["api"].task_id
    assert here.host.of_task("api")[-1].prompts[0].text == "the plan"


async def test_what_an_earlier_retry_completed_is_not_run_again(here: SmallWorld, new: RunId) -> None:
    leader, run_id = await failed_run(here)
    await here.ask(Retry(run_id=run_id, new_run_id=new))
    here.host.plays("api", writes({"api.py": "1"}, "the api"))
    here.host.plays("ui", *[crashes()] * 3)
    await leader.run_out()
    assert (await here.run(new)).state is RunState.FAILED
    newest = RunId(here.ports.new_id("r"))
    await here.ask(Retry(run_id=run_id, new_run_id=newest))
    here.host.plays("ui", writes({"ui.py": "1"}))
    await leader.run_out()
    assert list(await of_run(here, newest)) == ["ui"]
    assert (await here.run(newest)).state is RunState.COMPLETED
    # Both the run and the retry in between are done with now, whichever of them is asked for.
    for each in (run_id, new):
        request_id = await here.ask(Retry(run_id=each, new_run_id=RunId(here.ports.new_id("r"))))
        await leader.step("submit")
        assert "can be retried" in (await here.refusal(request_id) or "")


async def test_what_a_retry_still_works_on_is_not_run_a_second_time(here: SmallWorld, new: RunId) -> None:
    leader, run_id = await failed_run(here)
    await here.ask(Retry(run_id=run_id, new_run_id=new))
    await leader.step("submit")
    request_id = await here.ask(Retry(run_id=run_id, new_run_id=RunId(here.ports.new_id("r"))))
    await leader.step("submit")
    assert "still going on" in (await here.refusal(request_id) or "")


async def test_a_retry_of_one_task_sees_what_another_retry_completed(here: SmallWorld, new: RunId) -> None:
    leader, run_id = await failed_run(here)
    ui = (await of_run(here, run_id))["ui"]
    await here.ask(Retry(run_id=run_id, new_run_id=new))
    here.host.plays("api", writes({"api.py": "1"}))
    here.host.plays("ui", *[crashes()] * 3)
    await leader.run_out()
    newest = RunId(here.ports.new_id("r"))
    await here.ask(Retry(run_id=run_id, new_run_id=newest, task_id=ui.task_id))
    await leader.step("submit")
    again = await of_run(here, newest)
    assert list(again) == ["ui"]
    assert again["ui"].unmet == 0
