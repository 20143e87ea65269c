"""Changes of protected files: they wait for a person, and hold up nobody."""

from dataclasses import replace

from kapelle.core.events import ChangeApproved, ChangeHeld
from kapelle.core.merge import ChangeState, MergeRules
from kapelle.core.requests import Approve, Cancel, Reject
from kapelle.core.task import Task, TaskState, Wait
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import writes
from kapelle.testing.worlds import Leader, SmallWorld

CI = ".github/workflows/ci.yml"


async def held(here: SmallWorld, **changes: object) -> Leader:
    here.host.plays("api", writes({CI: "on: push", "api.py": "1"}), writes({CI: "on: pull_request"}))
    here.host.plays("ui", writes({"ui.py": "1"}))
    await here.submit(run_spec(task("api", max_attempts=1), task("ui"), **changes))
    leader = await here.lead()
    await leader.run()
    return leader


async def approve(here: SmallWorld, waiting: Task) -> str | None:
    request_id = await here.ask(Approve(run_id=waiting.run_id, task_id=waiting.task_id))
    await here.leaders[-1].run()
    return await here.refusal(request_id)


async def test_a_change_of_a_protected_file_waits_for_a_person(here: SmallWorld) -> None:
    await held(here)
    waiting = await here.task()
    assert (waiting.state, waiting.waits_for) == (TaskState.MERGING, Wait.APPROVAL)
    assert waiting.detail == f"it changes {CI}, which a person must see first"
    assert [event.files for event in await here.events(ChangeHeld, "api")] == [(CI,)]
    assert (await here.task("ui")).state is TaskState.COMPLETED
    assert set(here.repository.files("main")) == {"README.md", "ui.py"}


async def test_a_person_lets_it_through(here: SmallWorld) -> None:
    await held(here)
    assert await approve(here, await here.task()) is None
    assert (await here.task()).state is TaskState.COMPLETED
    assert here.repository.files("main")[CI] == "on: push"
    assert [event.principal for event in await here.events(ChangeApproved, "api")] == ["you"]
    assert (await here.changes())[0].approved_by == "you"


async def test_a_person_refuses_it(here: SmallWorld) -> None:
    leader = await held(here)
    waiting = await here.task()
    await here.ask(Reject(run_id=waiting.run_id, task_id=waiting.task_id, reason="no CI changes"))
    await leader.run()
    rejected = await here.task()
    assert rejected.state is TaskState.REJECTED
    assert rejected.failure is not None
    assert rejected.failure.message == "no CI changes"
    assert CI not in here.repository.files("main")
    assert len(here.kept) == 1
    assert (await here.changes())[0].state is ChangeState.WITHDRAWN


async def test_it_is_approved_once(here: SmallWorld) -> None:
    await held(here)
    here.points.hold("merge")
    waiting = await here.task()
    assert await approve(here, waiting) is None
    refusal = await approve(here, waiting)
    assert refusal == "task api does not wait for an approval: it is merging"


async def test_what_was_approved_is_asked_again_when_it_comes_back_changed(here: SmallWorld) -> None:
    await held(here)
    here.repository.push({CI: "on: release"})
    assert await approve(here, await here.task()) is None
    again = await here.task()
    assert (again.state, again.waits_for, again.round) == (TaskState.MERGING, Wait.APPROVAL, 1)
    assert await approve(here, again) is None
    assert here.repository.files("main")[CI] == "on: pull_request"


async def test_the_next_leader_waits_too(here: SmallWorld) -> None:
    leader = await held(here)
    await leader.die()
    successor = await here.lead()
    await successor.run()
    assert (await here.task()).waits_for is Wait.APPROVAL
    assert await approve(here, await here.task()) is None
    assert (await here.task()).state is TaskState.COMPLETED


async def test_it_can_be_cancelled(here: SmallWorld) -> None:
    leader = await held(here)
    await here.ask(Cancel(run_id=(await here.task()).run_id))
    await leader.run()
    assert (await here.task()).state is TaskState.CANCELLED


async def test_a_project_says_what_is_protected(here: SmallWorld) -> None:
    await held(here, merge=MergeRules(protect=("api.py",)))
    assert [event.files for event in await here.events(ChangeHeld)] == [("api.py",)]


async def test_a_project_may_protect_nothing(here: SmallWorld) -> None:
    await held(here, merge=replace(MergeRules(), protect=()))
    assert (await here.task()).state is TaskState.COMPLETED


async def test_what_was_merged_meanwhile_is_not_the_change_of_the_task(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    here.points.hold("commit")
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.repository.push({CI: "by a person"})
    here.points.release("commit")
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED
    assert await here.events(ChangeHeld) == []
