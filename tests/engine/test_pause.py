from kapelle.core.events import RunPaused, RunResumed, TaskApproved
from kapelle.core.requests import Approve, Pause, Reject, Resume
from kapelle.core.run import RunState
from kapelle.core.task import TaskState, Wait
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import writes
from kapelle.testing.worlds import SmallWorld


async def test_a_paused_run_starts_no_new_attempts(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api"), task("ui")))
    await here.ask(Pause(run_id=run_id))
    leader = await here.lead()
    await leader.run()
    assert here.host.processes == []
    assert [event.principal for event in await here.events(RunPaused)] == ["you"]


async def test_resume_lets_a_paused_run_go_on(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec())
    await here.ask(Pause(run_id=run_id))
    leader = await here.lead()
    await leader.run()
    await here.ask(Resume(run_id=run_id))
    await leader.run()
    assert (await here.run(run_id)).state is RunState.COMPLETED
    assert [event.principal for event in await here.events(RunResumed)] == ["you"]


async def test_what_runs_when_a_run_is_paused_goes_on_to_its_end(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api"), task("ui", needs=("api",))))
    leader = await here.lead()
    await leader.run()
    await here.ask(Pause(run_id=run_id))
    await leader.run()
    here.process().write("api.py", "broken")
    here.process().done()
    here.host.plays("api", writes({"api.py": "mended"}))
    await leader.run()
    tasks = await here.tasks()
    assert tasks["api"].state is TaskState.COMPLETED
    assert tasks["ui"].state is TaskState.PENDING


async def test_a_pause_holds_one_run_only(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api")))
    await here.ask(Pause(run_id=run_id))
    await here.submit(run_spec(task("ui")))
    leader = await here.lead()
    await leader.run()
    assert [process.task for process in here.host.processes] == ["ui"]


async def test_a_task_that_needs_an_approval_waits_for_it(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", approval=True)))
    leader = await here.lead()
    await leader.run()
    assert (await here.task()).waits_for is Wait.APPROVAL
    assert here.host.processes == []


async def test_an_approved_task_goes_on(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api", approval=True)))
    leader = await here.lead()
    await leader.run()
    await here.ask(Approve(run_id=run_id, task_id=await here.task_id()))
    await leader.run()
    assert (await here.task()).state is TaskState.RUNNING
    assert [event.principal for event in await here.events(TaskApproved, "api")] == ["you"]


async def test_a_task_can_be_approved_before_its_needs_are_met(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api"), task("ui", needs=("api",), approval=True)))
    here.host.plays("api", writes({"api.py": "1"}))
    leader = await here.lead()
    await leader.step("submit")
    await here.ask(Approve(run_id=run_id, task_id=await here.task_id("ui")))
    await leader.step("submit")
    assert (await here.task("ui")).waits_for is Wait.NEEDS
    await leader.run()
    assert (await here.task("ui")).state is TaskState.RUNNING


async def test_a_task_whose_needs_are_met_waits_for_its_approval(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api"), task("ui", needs=("api",), approval=True)))
    here.host.plays("api", writes({"api.py": "1"}))
    leader = await here.lead()
    await leader.run()
    assert (await here.task("ui")).waits_for is Wait.APPROVAL


async def test_a_rejected_task_ends_and_fails_those_that_need_it(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api", approval=True), task("ui", needs=("api",))))
    leader = await here.lead()
    await leader.run()
    await here.ask(Reject(run_id=run_id, task_id=await here.task_id(), reason="too dear"))
    await leader.run()
    tasks = await here.tasks()
    assert tasks["api"].state is TaskState.REJECTED
    assert tasks["api"].failure is not None
    assert tasks["api"].failure.message == "too dear"
    assert tasks["ui"].state is TaskState.FAILED
    assert tasks["ui"].failure is not None
    assert tasks["ui"].failure.message == "it needs api, which was rejected"
    assert (await here.run(run_id)).state is RunState.FAILED


async def test_only_what_waits_for_an_approval_can_be_approved_or_rejected(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api"), task("asked", approval=True)))
    leader = await here.lead()
    await leader.run()
    api, asked = await here.task_id("api"), await here.task_id("asked")
    refused = [
        await here.ask(Approve(run_id=run_id, task_id=api)),
        await here.ask(Reject(run_id=run_id, task_id=api)),
    ]
    first = await here.ask(Approve(run_id=run_id, task_id=asked))
    second = await here.ask(Approve(run_id=run_id, task_id=asked))
    await leader.run()
    for request_id in refused:
        assert await here.refusal(request_id) == "task api does not wait for an approval: it is running"
    assert await here.refusal(first) is None
    assert await here.refusal(second) == "task asked does not wait for an approval: it is pending"
