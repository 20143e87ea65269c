from datetime import timedelta

import pytest

from kapelle.core.errors import GitFailed
from kapelle.core.events import TargetDelivered, TargetHeldUp
from kapelle.core.merge import DeliveryMode
from kapelle.core.requests import Cancel, Resume
from kapelle.core.run import RunState
from kapelle.core.task import TaskSpec, TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.git import Files
from kapelle.testing.hosts import ScriptedProcess, crashes, writes
from kapelle.testing.worlds import Leader, SmallWorld

DIRTY = "git does not update the checkout /project: your local changes would be overwritten"


async def two_tasks(here: SmallWorld, delivery: DeliveryMode) -> Leader:
    """A run of two tasks of which the second is still at work."""
    here.host.plays("first", writes({"first.py": "1"}))
    await here.submit(run_spec(task("first"), task("second"), delivery=delivery))
    leader = await here.lead()
    await leader.run()
    return leader


async def finish_second(here: SmallWorld, leader: Leader) -> None:
    writes({"second.py": "1"})(here.process("second"), "")
    await leader.run_out()


# --- When ---


async def test_each_change_is_delivered_when_it_is_merged(here: SmallWorld) -> None:
    leader = await two_tasks(here, DeliveryMode.EACH)
    assert set(here.repository.files("main")) == {"README.md", "first.py"}
    await finish_second(here, leader)
    assert set(here.repository.files("main")) == {"README.md", "first.py", "second.py"}
    assert [event.commit for event in await here.events(TargetDelivered)][-1] == here.target


async def test_everything_is_delivered_together_at_the_end(here: SmallWorld) -> None:
    before = here.target
    leader = await two_tasks(here, DeliveryMode.END)
    assert (await here.task("first")).state is TaskState.COMPLETED
    assert here.target == before
    await finish_second(here, leader)
    assert set(here.repository.files("main")) == {"README.md", "first.py", "second.py"}
    assert len(await here.events(TargetDelivered)) == 1


async def test_what_was_merged_is_delivered_at_the_end_although_other_tasks_failed(here: SmallWorld) -> None:
    here.host.plays("second", *[crashes()] * 3)
    here.host.plays("first", writes({"first.py": "1"}))
    run_id = await here.submit(run_spec(task("first"), task("second", max_attempts=1), delivery=DeliveryMode.END))
    leader = await here.lead()
    await leader.run_out()
    assert (await here.run(run_id)).state is RunState.FAILED
    assert set(here.repository.files("main")) == {"README.md", "first.py"}


async def test_nothing_is_ever_delivered_when_it_is_not_to_be(here: SmallWorld) -> None:
    before = here.target
    leader = await two_tasks(here, DeliveryMode.NEVER)
    await finish_second(here, leader)
    assert here.target == before
    assert {found.state for found in (await here.tasks()).values()} == {TaskState.COMPLETED}
    (run,) = [overview.run for overview in await here.store.read(lambda view: view.runs.overviews())]
    assert run.state is RunState.COMPLETED


@pytest.mark.parametrize("delivery", [DeliveryMode.END, DeliveryMode.NEVER])
async def test_what_is_merged_and_not_delivered_is_held_by_an_integration_ref(here: SmallWorld, delivery: DeliveryMode) -> None:
    await two_tasks(here, delivery)
    line = (await here.task("first")).run_id
    integration = await here.integration(line)
    assert here.integrated(line) == integration.tip
    assert "first.py" in here.repository.files(integration.tip)
    assert here.kept == {}


async def test_what_a_run_does_not_deliver_is_delivered_by_no_other(here: SmallWorld) -> None:
    leader = await two_tasks(here, DeliveryMode.NEVER)
    await finish_second(here, leader)
    here.host.plays("third", writes({"third.py": "1"}))
    await here.submit(run_spec(task("third")))
    await leader.run()
    assert set(here.repository.files("main")) == {"README.md", "third.py"}
    integration = await here.integration((await here.task("first")).run_id)
    assert set(here.repository.files(integration.tip)) == {"README.md", "first.py", "second.py"}


async def test_two_runs_on_one_target_are_each_delivered_in_their_time(here: SmallWorld) -> None:
    leader = await two_tasks(here, DeliveryMode.END)
    here.host.plays("third", writes({"third.py": "1"}))
    await here.submit(run_spec(task("third")))
    await leader.run()
    assert set(here.repository.files("main")) == {"README.md", "third.py"}
    await finish_second(here, leader)
    assert set(here.repository.files("main")) == {"README.md", "first.py", "second.py", "third.py"}
    assert here.repository.commits[here.target].tree in {ran.tree for ran in here.host.ran if ran.passed}


async def test_undelivered_work_that_a_person_took_over_is_not_merged_again(here: SmallWorld) -> None:
    leader = await two_tasks(here, DeliveryMode.END)
    here.repository.move("refs/heads/main", (await here.integration((await here.task("first")).run_id)).tip)
    here.repository.push({"first.py": None})
    await finish_second(here, leader)
    assert set(here.repository.files("main")) == {"README.md", "second.py"}


async def test_what_a_person_takes_off_the_target_stays_off_it(here: SmallWorld) -> None:
    before = here.target
    leader = await two_tasks(here, DeliveryMode.EACH)
    here.repository.move("refs/heads/main", before)
    await finish_second(here, leader)
    assert set(here.repository.files("main")) == {"README.md", "second.py"}


# --- Held up ---


async def held_up(here: SmallWorld) -> Leader:
    here.repository.in_the_way = DIRTY
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec(task("api"), name="shop"))
    leader = await here.lead()
    await leader.run()
    return leader


async def test_a_run_whose_target_is_held_up_stays_open_and_says_why(here: SmallWorld) -> None:
    before = here.target
    await held_up(here)
    (run,) = await here.store.read(lambda view: view.runs.open())
    assert run.state is RunState.DELIVERING
    assert (await here.task()).state is TaskState.COMPLETED
    assert here.target == before
    integration = await here.integration()
    assert integration.held_up == DIRTY
    assert here.integrated() == integration.tip
    assert [event.reason for event in await here.events(TargetHeldUp)] == [DIRTY]


async def test_a_target_that_is_held_up_is_tried_again_by_itself(here: SmallWorld) -> None:
    leader = await held_up(here)
    tries = here.points.passed.count("deliver")
    await leader.run()
    assert here.points.passed.count("deliver") == tries
    here.clock.move(timedelta(seconds=5))
    await leader.run()
    assert here.points.passed.count("deliver") == tries + 1
    assert len(await here.events(TargetHeldUp)) == 1
    here.repository.in_the_way = ""
    here.clock.move(timedelta(seconds=5))
    await leader.run()
    assert "api.py" in here.repository.files("main")
    assert await here.store.read(lambda view: view.runs.open()) == []


async def test_a_new_leader_tries_a_target_that_was_held_up(here: SmallWorld) -> None:
    leader = await held_up(here)
    await leader.die()
    here.repository.in_the_way = ""
    successor = await here.lead()
    await successor.run()
    assert "api.py" in here.repository.files("main")


async def test_resume_forgets_why_a_target_was_held_up(here: SmallWorld) -> None:
    leader = await held_up(here)
    (run,) = await here.store.read(lambda view: view.runs.open())
    await here.ask(Resume(run_id=run.run_id))
    await leader.step("submit")
    integration = await here.integration()
    assert integration.held_up == ""


async def test_cancelling_gives_a_held_up_delivery_up_and_loses_nothing(here: SmallWorld) -> None:
    leader = await held_up(here)
    before, merged = here.target, (await here.integration()).tip
    (run,) = await here.store.read(lambda view: view.runs.open())
    await here.ask(Cancel(run_id=run.run_id))
    await leader.run_out()
    assert (await here.run(run.run_id)).state is RunState.CANCELLED
    assert here.target == before
    assert here.integrated(run.run_id) == merged


async def test_a_delivery_that_was_given_up_does_not_go_with_the_next(here: SmallWorld) -> None:
    leader = await held_up(here)
    (run,) = await here.store.read(lambda view: view.runs.open())
    await here.ask(Cancel(run_id=run.run_id))
    here.repository.in_the_way = ""
    here.host.plays("ui", writes({"ui.py": "1"}))
    await here.submit(run_spec(task("ui")))
    await leader.run_out()
    assert set(here.repository.files("main")) == {"README.md", "ui.py"}
    assert "api.py" in here.repository.files(here.integrated(run.run_id) or "")


async def test_merging_goes_on_while_the_target_is_held_up(here: SmallWorld) -> None:
    leader = await held_up(here)
    here.host.plays("ui", writes({"ui.py": "1"}))
    await here.submit(run_spec(task("ui")))
    await leader.run()
    assert (await here.task("ui")).state is TaskState.COMPLETED
    here.repository.in_the_way = ""
    await leader.run_out()
    assert set(here.repository.files("main")) == {"README.md", "api.py", "ui.py"}


async def test_git_that_fails_in_a_delivery_holds_the_target_up(here: SmallWorld) -> None:
    here.points.fail("deliver", GitFailed("the disk is full", remedy="Free some."))
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert [(event.reason, event.remedy) for event in await here.events(TargetHeldUp)] == [("the disk is full", "Free some.")]
    await leader.run_out()
    assert (await here.run(run_id)).state is RunState.COMPLETED


# --- A target that moves by itself ---


async def test_a_target_that_moved_before_the_delivery_is_caught_up_with(here: SmallWorld) -> None:
    here.points.hold("merge:done")
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.repository.push({"theirs.py": "1"})
    here.points.release("merge:done")
    await leader.run_out()
    assert set(here.repository.files("main")) == {"README.md", "api.py", "theirs.py"}
    assert here.repository.commits[here.target].tree in {ran.tree for ran in here.host.ran if ran.passed}


async def test_a_target_that_moves_again_and_again_is_caught_up_with_in_the_end(here: SmallWorld) -> None:
    pushes = iter(range(3))

    def check(files: Files) -> str | None:
        del files
        for number in pushes:
            here.repository.push({f"theirs-{number}.py": "1"})
            break

    here.host.commands["make test"] = check
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run_out()
    assert set(here.repository.files("main")) == {
        "README.md",
        "api.py",
        *(f"theirs-{number}.py" for number in range(3)),
    }


async def test_a_target_that_moved_and_conflicts_with_merged_work_is_held_up(here: SmallWorld) -> None:
    here.points.hold("merge:done")
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    theirs = here.repository.push({"api.py": "theirs"})
    here.points.release("merge:done")
    await leader.run()
    assert here.target == theirs
    assert [event.reason for event in await here.events(TargetHeldUp)] == [
        "main has moved on and conflicts with merged work in api.py"
    ]
    here.repository.push({"api.py": None})
    await leader.run_out()
    assert here.repository.files("main")["api.py"] == "1"


async def test_a_target_that_moved_and_breaks_with_merged_work_is_held_up(here: SmallWorld) -> None:
    def together(files: Files) -> str | None:
        return "they do not fit" if {"api.py", "theirs.py"} <= set(files) else None

    here.host.commands["make test"] = together
    here.points.hold("merge:done")
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    theirs = here.repository.push({"theirs.py": "1"})
    here.points.release("merge:done")
    await leader.run()
    assert here.target == theirs
    assert [event.reason for event in await here.events(TargetHeldUp)] == [
        "main has moved on, and check/test fails on both together"
    ]


async def test_a_person_who_brings_both_together_as_told_ends_what_was_held_up(here: SmallWorld) -> None:
    here.host.commands["make test"] = lambda files: None if files.get("theirs.py", "2") == "2" else "they do not fit"
    here.points.hold("merge:done")
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.repository.push({"theirs.py": "1"})
    here.points.release("merge:done")
    await leader.run()
    integration = await here.integration()
    assert f"on main, git merge {integration.tip[:10]} " in integration.remedy
    theirs = here.repository.merge_by_hand(integration.tip, lambda files: {**files, "theirs.py": "2"})
    await leader.run_out()
    assert (await here.run(run_id)).state is RunState.COMPLETED
    assert here.target == theirs


async def fails_together(here: SmallWorld, *others: TaskSpec, times: int) -> Leader:
    """A run whose work does not pass with what a person has meanwhile put on the target, *times* times."""
    reds = iter(range(times))

    def check(files: Files) -> str | None:
        together = {"api.py", "theirs.py"} <= set(files)
        return "they do not fit" if together and next(reds, None) is not None else None

    here.host.commands["make test"] = check
    here.points.hold("merge:done")
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec(task(), *others))
    leader = await here.lead()
    await leader.run()
    here.repository.push({"theirs.py": "1"})
    here.points.release("merge:done")
    await leader.run()
    return leader


async def a_minute(here: SmallWorld, leader: Leader) -> None:
    for _ in range(10):
        here.clock.move(timedelta(seconds=6))
        await leader.run()


async def test_a_gate_that_fails_by_chance_on_what_has_moved_on_is_tried_once_more(here: SmallWorld) -> None:
    leader = await fails_together(here, times=1)
    await a_minute(here, leader)
    assert set(here.repository.files("main")) == {"README.md", "api.py", "theirs.py"}


async def test_what_does_not_pass_together_is_not_gated_again_and_again(here: SmallWorld) -> None:
    leader = await fails_together(here, times=100)
    before = len(here.host.ran)
    await a_minute(here, leader)
    assert len(here.host.ran) == before + 1
    assert len(await here.events(TargetHeldUp)) == 1


async def test_changes_go_on_while_merged_work_does_not_pass_with_the_target(here: SmallWorld) -> None:
    leader = await fails_together(here, task("ui"), times=100)
    await a_minute(here, leader)
    before = len(here.host.ran)
    writes({"ui.py": "1"})(here.process("ui"), "")
    await leader.run()
    assert (await here.task("ui")).state is TaskState.COMPLETED
    assert [ran.passed for ran in here.host.ran[before:]] == [True, True]


@pytest.mark.parametrize("moved", [True, False], ids=["the-target-moves-again", "a-person-says-so"])
async def test_what_did_not_pass_together_is_gated_again_when(here: SmallWorld, moved: bool) -> None:
    leader = await fails_together(here, times=2)
    await a_minute(here, leader)
    (run,) = await here.store.read(lambda view: view.runs.open())
    if moved:
        here.repository.push({"more.py": "1"})
    else:
        await here.ask(Resume(run_id=run.run_id))
    await a_minute(here, leader)
    assert (await here.run(run.run_id)).state is RunState.COMPLETED


def breaks_together(files: Files) -> str | None:
    return "they do not fit" if {"first.py", "theirs.py"} <= set(files) else None


async def test_a_change_without_a_gate_brings_no_unproven_work_with_it(here: SmallWorld) -> None:
    here.host.commands["make test"] = breaks_together
    here.host.plays("first", writes({"first.py": "1"}))
    await here.submit(run_spec(task("first"), task("second", gate=None), delivery=DeliveryMode.END))
    leader = await here.lead()
    await leader.run()
    theirs = here.repository.push({"theirs.py": "1"})
    writes({"second.py": "1"})(here.process("second"), "")
    await leader.run()
    assert here.target == theirs
    assert [event.reason for event in await here.events(TargetHeldUp)] == [
        "main has moved on, and check/test fails on both together"
    ]


async def test_what_other_runs_merged_is_proven_by_their_gates(here: SmallWorld) -> None:
    here.host.commands["make test"] = breaks_together
    here.host.plays("first", writes({"first.py": "1"}))
    here.repository.in_the_way = DIRTY
    await here.submit(run_spec(task("slow", gate=None)))
    leader = await here.lead()
    await leader.run()
    here.clock.move(timedelta(seconds=1))
    await here.submit(run_spec(task("first")))
    await leader.run()
    theirs = here.repository.push({"theirs.py": "1"})
    here.repository.in_the_way = ""
    here.clock.move(timedelta(seconds=10))
    await leader.run()
    assert here.target == theirs


async def test_a_target_that_moves_during_the_delivery_itself_is_left_where_it_is(here: SmallWorld) -> None:
    here.points.hold("deliver")
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    theirs = here.repository.push({"theirs.py": "1"})
    here.points.release("deliver")
    await leader.run()
    assert here.target == theirs
    assert [event.reason for event in await here.events(TargetHeldUp)] == ["main was moved by somebody else meanwhile"]
    await leader.run_out()
    assert set(here.repository.files("main")) == {"README.md", "api.py", "theirs.py"}


async def test_a_target_that_disappears_is_held_up_until_it_is_back(here: SmallWorld) -> None:
    here.points.hold("move_ref")
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    before = here.repository.refs.pop("refs/heads/main")
    here.points.release("move_ref")
    await leader.run()
    assert [event.reason for event in await here.events(TargetHeldUp)] == ["the branch main is gone"]
    here.repository.move("refs/heads/main", before)
    await leader.run_out()
    assert (await here.run(run_id)).state is RunState.COMPLETED


# --- Crashes ---


@pytest.mark.parametrize("point", ["merge:done", "move_ref", "move_ref:done", "deliver", "deliver:done"])
async def test_refs_follow_the_store_after_a_crash(here: SmallWorld, point: str) -> None:
    here.points.hold(point)
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    await leader.die()
    here.points.heal()
    successor = await here.lead()
    await successor.run_out()
    integration = await here.integration()
    assert integration.tip == integration.delivered == here.target == here.integrated()
    assert here.repository.files("main") == {"README.md": "hello", "api.py": "1"}
    assert (await here.run(run_id)).state is RunState.COMPLETED


async def test_a_new_leader_moves_the_integration_ref_to_where_the_store_says(here: SmallWorld) -> None:
    here.points.hold("move_ref")
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert here.integrated() is None
    await leader.die()
    here.points.heal()
    await here.lead()
    integration = await here.integration()
    assert here.integrated() == integration.tip


async def test_a_target_that_moved_on_after_a_delivery_that_was_not_written_down_is_left_alone(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        writes({"api.py": "1"})(process, "")

    here.points.hold("deliver:done")
    here.host.plays("api", script)
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    await leader.die()
    later = here.repository.push({"later.py": "1"})
    here.points.heal()
    successor = await here.lead()
    await successor.run_out()
    assert here.target == later
    assert (await here.run(run_id)).state is RunState.COMPLETED
