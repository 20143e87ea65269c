import pytest

from kapelle.core.attempt import Outcome
from kapelle.core.events import AgentStopped, ChangeMerged, TaskFailed
from kapelle.core.merge import ChangeState
from kapelle.core.requests import Cancel
from kapelle.core.run import RunState
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import ScriptedProcess, writes
from kapelle.testing.worlds import SmallWorld


async def test_cancelling_a_run_cancels_all_its_tasks(here: SmallWorld) -> None:
    # In the file those who need stand before what they need.
    specs = [task("last", needs=("middle",)), task("middle", needs=("first",)), task("first")]
    run_id = await here.submit(run_spec(*specs))
    leader = await here.lead()
    await leader.run()
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.CANCELLED}
    assert await here.events(TaskFailed) == []
    assert (await here.run(run_id)).state is RunState.CANCELLED


async def test_cancelling_a_task_fails_those_that_need_it(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api"), task("ui", needs=("api",)), task("docs", needs=("ui",)), task("other")))
    here.host.plays("other", writes({"other.py": "1"}))
    leader = await here.lead()
    await leader.run()
    await here.ask(Cancel(run_id=run_id, task_id=await here.task_id("api")))
    await leader.run()
    tasks = await here.tasks()
    assert tasks["api"].state is TaskState.CANCELLED
    assert tasks["ui"].state is TaskState.FAILED
    assert tasks["ui"].failure is not None
    assert tasks["ui"].failure.message == "it needs api, which was cancelled"
    assert tasks["docs"].failure is not None
    assert tasks["docs"].failure.message == "it needs ui, which failed"
    assert tasks["other"].state is TaskState.COMPLETED


async def test_cancelling_a_task_that_has_ended_is_refused(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("done", agent="nobody"), task("open")))
    leader = await here.lead()
    await leader.run()
    request_id = await here.ask(Cancel(run_id=run_id, task_id=await here.task_id("done")))
    await leader.run()
    assert await here.refusal(request_id) == "task done has ended already: it was completed"


async def test_cancelling_a_running_task_ends_its_agent_and_keeps_its_work(here: SmallWorld) -> None:
    here.host.plays("api", lambda process, _: process.write("half.py", "half"))
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert here.process().alive
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    assert not here.process().alive
    assert len(await here.events(AgentStopped)) == 1
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.CANCELLED]
    (commit,) = here.kept.values()
    assert here.repository.files(commit)["half.py"] == "half"


@pytest.mark.parametrize("point", ["prepare", "prepare:done", "start", "start:done"])
async def test_a_task_that_is_cancelled_while_its_agent_is_deployed_leaves_none_behind(here: SmallWorld, point: str) -> None:
    run_id = await here.submit(run_spec())
    here.points.hold(point)
    leader = await here.lead()
    await leader.run()
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    here.points.release(point)
    await leader.run()
    assert (await here.task()).state is TaskState.CANCELLED
    assert here.host.live() == []
    assert here.git.directories == {}


async def test_a_task_that_is_cancelled_while_its_gate_runs_stays_cancelled(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec())
    here.points.hold("run")
    leader = await here.lead()
    await leader.run()
    assert (await here.task()).state is TaskState.VALIDATING
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    here.points.release("run")
    await leader.run()
    assert (await here.task()).state is TaskState.CANCELLED
    assert list(await here.changes()) == []


async def test_a_change_is_withdrawn_when_its_task_is_cancelled_while_it_is_merged(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec())
    before = here.target
    here.points.hold("merge:done")
    leader = await here.lead()
    await leader.run()
    assert (await here.task()).state is TaskState.MERGING
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    here.points.release("merge:done")
    await leader.run()
    assert [change.state for change in await here.changes()] == [ChangeState.WITHDRAWN]
    assert await here.events(ChangeMerged) == []
    assert here.target == before
    (commit,) = here.kept.values()
    assert here.repository.files(commit)["api.py"] == "1"


async def test_what_an_agent_says_after_its_task_was_cancelled_changes_nothing(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec())
    here.points.hold("end")
    leader = await here.lead()
    await leader.run()
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    here.process().write("late.py", "late")
    here.process().done("too late")
    here.points.release("end")
    await leader.run()
    assert (await here.task()).state is TaskState.CANCELLED
    assert (await here.task()).summary == ""


async def test_cancelling_a_run_twice_is_refused_the_second_time(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    second = await here.ask(Cancel(run_id=run_id))
    await leader.run()
    refusal = await here.refusal(second)
    assert refusal is not None
    assert "has ended already: it was cancelled" in refusal


async def test_work_that_was_merged_before_a_cancel_stays_merged(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec(task("api"), task("ui", needs=("api",))))
    leader = await here.lead()
    await leader.run()
    assert (await here.task("ui")).state is TaskState.RUNNING
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    assert (await here.task("api")).state is TaskState.COMPLETED
    assert here.repository.files("main")["api.py"] == "1"
    assert (await here.run(run_id)).state is RunState.CANCELLED


async def test_a_run_that_is_cancelled_while_its_change_is_merged_leaves_nothing_behind(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        here.repository.push({"theirs.py": "1"})
        writes({"api.py": "1"})(process, "")

    here.host.plays("api", script)
    run_id = await here.submit(run_spec())
    here.points.hold("merge")
    leader = await here.lead()
    await leader.run()
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    here.points.release("merge")
    await leader.run()
    assert here.git.directories == {}
    assert await here.store.read(lambda view: view.agents.workspaces()) == []
