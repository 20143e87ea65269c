from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kapelle.core.agent import AgentConfig, PoolRules, Reuse
from kapelle.core.attempt import Outcome
from kapelle.core.events import AgentDeployed, SnapshotKept
from kapelle.core.ids import RunId
from kapelle.core.isolation import Remains
from kapelle.core.isolation_events import LimitMet
from kapelle.core.pool import Spare, SpareState
from kapelle.core.pool_events import AgentCleared, AgentWorn, SpareEnded, SpareGiven
from kapelle.core.requests import Approve, Cancel, Halt, Pause, Unhalt
from kapelle.core.run import Limits, RunSpec, WorkspaceRules
from kapelle.core.task import Priority, TaskState
from kapelle.engine.reuse import PATIENCE
from kapelle.testing.factories import CODER, run_spec, task
from kapelle.testing.hosts import ScriptedProcess
from kapelle.testing.worlds import SmallWorld

AGAIN = replace(CODER, reuse=Reuse.SAME_RUN)
ONE_AT_ONCE = Limits(agents=1)


def chain(*names: str, config: AgentConfig = AGAIN, limits: Limits = ONE_AT_ONCE, **changes: Any) -> RunSpec:
    order = [Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW]
    tasks = [task(name, priority=priority, **changes) for name, priority in zip(names, order, strict=False)]
    return run_spec(*tasks, configs=(config,), limits=limits)


def does(process: ScriptedProcess, _text: str) -> None:
    process.write(f"{process.task}.py", "1")
    process.done(f"did {process.task}")


def goes_deaf(process: ScriptedProcess, text: str) -> None:
    does(process, text)
    process.deaf = True


async def spares(here: SmallWorld) -> list[Spare]:
    return await here.store.read(lambda view: list(view.spares.all()))


async def approve(here: SmallWorld, name: str) -> None:
    found = await here.task(name)
    await here.ask(Approve(run_id=found.run_id, task_id=found.task_id))


async def ended(here: SmallWorld) -> set[TaskState]:
    return {entry.state for entry in (await here.tasks()).values()}


async def test_one_program_does_all_tasks_each_in_a_conversation_of_its_own(here: SmallWorld) -> None:
    here.host.otherwise = does
    await here.submit(chain("a", "b", "c"))
    leader = await here.lead()
    await leader.run()
    assert await ended(here) == {TaskState.COMPLETED}
    (process,) = here.host.processes
    assert process.cleared == 2
    assert [prompt.text for prompt in process.prompts] == ["do a", "do b", "do c"]
    attempts = [(await here.attempts(name))[0] for name in "abc"]
    assert len({attempt.conversation_id for attempt in attempts}) == 3
    assert {attempt.workspace_id for attempt in attempts} == {attempts[0].workspace_id}
    assert [attempt.outcome for attempt in attempts] == [Outcome.SUCCEEDED] * 3
    assert len(await here.events(AgentCleared)) == len(await here.events(SpareGiven)) == 2
    assert {"a.py", "b.py", "c.py"} <= set(here.repository.files("main"))
    # Nothing asks for it any more.
    assert not process.alive
    assert await spares(here) == []
    assert here.git.directories == {}


async def test_it_begins_where_a_fresh_one_would(here: SmallWorld) -> None:
    """At what is merged by then, and with nothing of the one before: neither files that git ignores nor variables."""
    here.repository.ignored = ("*.cache",)
    seen: list[tuple[set[str], str, str]] = []

    def looks(process: ScriptedProcess, text: str) -> None:
        seen.append((set(process.directory.files), process.env["KAPELLE_TASK"], process.env["KAPELLE_ATTEMPT"]))
        process.write("left.cache", "x")
        does(process, text)

    here.host.otherwise = looks
    await here.submit(chain("a", "b"))
    leader = await here.lead()
    await leader.run()
    (first, _, _), (second, name, attempt_id) = seen
    assert second - first == {"a.py"}
    assert (name, attempt_id) == ("b", (await here.attempts("b"))[0].attempt_id)


async def test_what_changes_nothing_goes_on_too(here: SmallWorld) -> None:
    here.host.otherwise = lambda process, _: process.done("looked")
    await here.submit(chain("a", "b", reads_only=True))
    leader = await here.lead()
    await leader.run()
    assert await ended(here) == {TaskState.COMPLETED}
    (process,) = here.host.processes
    assert process.cleared == 1


async def test_setup_runs_again(here: SmallWorld) -> None:
    here.host.otherwise = does
    run = replace(chain("a", "b"), workspace=WorkspaceRules(setup=("true",)))
    await here.submit(run)
    leader = await here.lead()
    await leader.run()
    assert len(here.host.processes) == 1
    assert [ran.command for ran in here.host.ran].count("true") == 2


async def test_a_set_up_that_fails_lets_it_end(here: SmallWorld) -> None:
    here.host.otherwise = does
    failing = iter([None, "no", None])
    here.host.commands["make deps"] = lambda _: next(failing)
    await here.submit(replace(chain("a", "b"), workspace=WorkspaceRules(setup=("make deps",))))
    leader = await here.lead()
    await leader.run()
    assert await ended(here) == {TaskState.COMPLETED}
    assert [process.task for process in here.host.processes] == ["a", "b"]
    assert await here.events(SnapshotKept) == []


async def test_what_has_left_a_process_behind_ends_with_it(here: SmallWorld) -> None:
    def leaves(process: ScriptedProcess, text: str) -> None:
        here.host.left_behind(process)
        does(process, text)

    here.host.plays("a", leaves)
    here.host.otherwise = does
    await here.submit(chain("a", "b"))
    leader = await here.lead()
    await leader.run()
    assert await ended(here) == {TaskState.COMPLETED}
    assert here.host.processes[0].cleared == 0
    assert here.host.live() == []
    assert [event.reason for event in await here.events(AgentWorn)] == ["something that it started is at work still"]


async def test_what_has_met_a_limit_ends_with_its_task_which_is_told(here: SmallWorld) -> None:
    """Counted is what a program met in all its life: the next task would be told of it."""
    here.sandbox.remains = lambda place: Remains(out_of_memory=place.key == here.sandbox.wrapped[0][1].key)
    here.host.otherwise = does
    await here.submit(chain("a", "b"))
    leader = await here.lead()
    await leader.run()
    assert await ended(here) == {TaskState.COMPLETED}
    assert [process.cleared for process in here.host.processes] == [0, 0]
    assert [(await here.task("a")).task_id] == [event.task_id for event in await here.events(LimitMet)]
    assert [event.reason for event in await here.events(AgentWorn)] == ["it had no memory left"]


async def test_what_does_not_begin_a_new_conversation_ends_after_a_while(here: SmallWorld) -> None:
    here.host.plays("a", goes_deaf)
    here.host.otherwise = does
    await here.submit(chain("a", "b"))
    leader = await here.lead()
    await leader.run()
    assert (await here.task("b")).state is TaskState.PENDING
    here.clock.move(PATIENCE)
    await leader.run()
    assert await ended(here) == {TaskState.COMPLETED}
    assert [process.task for process in here.host.processes] == ["a", "b"]
    assert not [ref for ref in here.repository.refs if "/kept/" in ref]
    assert [event.reason for event in await here.events(AgentWorn)] == ["its program did not begin a new conversation"]


async def test_a_leader_that_dies_meanwhile_leaves_nothing(here: SmallWorld) -> None:
    here.host.plays("a", goes_deaf)
    here.host.otherwise = does
    await here.submit(chain("a", "b"))
    leader = await here.lead()
    await leader.run()
    assert (await here.task("a")).state is TaskState.COMPLETED
    assert await spares(here) == []
    await leader.die()
    leader = await here.lead()
    await leader.run()
    assert await ended(here) == {TaskState.COMPLETED}
    assert len(here.host.processes) == 2
    assert here.host.live() == []
    assert here.git.directories == {}


async def test_a_leader_that_dies_while_it_waits_leaves_nothing(here: SmallWorld) -> None:
    here.host.otherwise = does
    await here.submit(run_spec(task("a"), task("b", needs=("a",), approval=True), configs=(AGAIN,)))
    leader = await here.lead()
    await leader.run()
    (spare,) = await spares(here)
    assert (spare.state, spare.run_id) == (SpareState.READY, (await here.task("a")).run_id)
    await leader.die()
    leader = await here.lead()
    await leader.run()
    assert here.host.live() == []
    assert await spares(here) == []
    assert here.git.directories == {}


@pytest.mark.parametrize("how", ["pause", "halt", "idle"])
async def test_nobody_waits_for_ever(here: SmallWorld, how: str) -> None:
    here.host.otherwise = does
    config = replace(AGAIN, pool=PoolRules(idle=timedelta(minutes=3)))
    run_id = await here.submit(run_spec(task("a"), task("b", needs=("a",), approval=True), configs=(config,)))
    leader = await here.lead()
    await leader.run()
    assert len(await spares(here)) == 1
    if how == "idle":
        here.clock.move(timedelta(minutes=3))
    else:
        await here.ask(Pause(run_id=run_id) if how == "pause" else Halt(run_id=RunId("")))
    await leader.run()
    assert await spares(here) == []
    assert here.host.live() == []
    assert len(await here.events(SpareEnded)) == 1
    await here.ask(Unhalt(run_id=RunId("")))


async def test_other_runs_and_shorter_limits_do_not_get_it(here: SmallWorld) -> None:
    here.host.otherwise = does
    short = task("b", needs=("a",), timeout=timedelta(minutes=1))
    await here.submit(run_spec(task("a"), short, task("c", needs=("b",), approval=True), configs=(AGAIN,)))
    leader = await here.lead()
    await leader.run()
    # One of them is enough for what is left.
    assert [spare.bounded for spare in await spares(here)] == [60]
    await here.submit(run_spec(task("d"), configs=(AGAIN,)))
    await leader.run()
    assert [process.task for process in here.host.processes] == ["a", "b", "d"]
    assert [event.pid for event in await here.events(AgentDeployed)] == [process.ref.pid for process in here.host.processes]


async def test_where_something_is_not_merged_the_workspace_is_kept_and_not_used_again(here: SmallWorld) -> None:
    here.host.otherwise = does
    here.points.hold("merge:done")
    await here.submit(chain("a", "b"))
    leader = await here.lead()
    await leader.run()
    here.host.processes[0].directory.files["late.py"] = "written after its turn"
    here.points.release("merge:done")
    await leader.run()
    assert await ended(here) == {TaskState.COMPLETED}
    assert len(here.host.processes) == 2
    assert "late.py" not in here.host.processes[1].directory.files
    assert [event.reason for event in await here.events(AgentWorn)] == ["something in its workspace was not merged"]


async def test_without_the_setting_each_task_has_a_program_of_its_own(here: SmallWorld) -> None:
    here.host.otherwise = does
    await here.submit(chain("a", "b", config=CODER))
    leader = await here.lead()
    await leader.run()
    assert len(here.host.processes) == 2


async def test_an_agent_that_fails_is_not_used_again(here: SmallWorld) -> None:
    here.host.plays("a", lambda process, _: process.exit(1))
    here.host.otherwise = does
    await here.submit(chain("a", "b", max_attempts=1))
    leader = await here.lead()
    await leader.run()
    here.clock.move(timedelta(minutes=5))
    await leader.run()
    assert (await here.task("b")).state is TaskState.COMPLETED


async def test_a_crash_in_a_later_task_resumes_that_one_s_conversation(here: SmallWorld) -> None:
    here.host.plays("a", does)
    here.host.plays("b", lambda process, _: process.exit(1), does)
    await here.submit(chain("a", "b"))
    leader = await here.lead()
    await leader.run()
    here.clock.move(timedelta(minutes=1))
    await leader.run()
    assert await ended(here) == {TaskState.COMPLETED}
    first, second = here.host.processes
    assert second.resumed
    assert second.conversation_id == f"{first.launch.argv[2]}/1"
    attempt_a, attempt_b = (await here.attempts("a"))[0], (await here.attempts("b"))[0]
    assert attempt_b.home == attempt_a.attempt_id


async def test_no_more_of_them_wait_than_there_are_tasks_left(here: SmallWorld) -> None:
    """Five are done at once, and one task is left: four programs are not kept for it."""
    here.host.otherwise = does
    names = ("a", "b", "c", "d", "e")
    last = task("last", needs=names, approval=True)
    await here.submit(run_spec(*(task(name) for name in names), last, configs=(AGAIN,)))
    leader = await here.lead()
    await leader.run()
    assert len(here.host.processes) == len(names)
    assert len(await spares(here)) == len(here.host.live()) == 1


async def test_of_those_that_wait_already_what_is_too_many_ends(here: SmallWorld) -> None:
    here.host.otherwise = does
    later = [task(name, needs=("a", "b"), approval=True) for name in ("c", "d")]
    run_id = await here.submit(run_spec(task("a"), task("b"), *later, configs=(AGAIN,)))
    leader = await here.lead()
    await leader.run()
    assert len(await spares(here)) == 2
    await here.ask(Cancel(run_id=run_id, task_id=(await here.task("d")).task_id))
    await leader.run()
    assert len(await spares(here)) == len(here.host.live()) == 1


async def test_one_that_waits_has_no_time_limit_until_it_has_a_task(here: SmallWorld) -> None:
    here.host.otherwise = does
    await here.submit(run_spec(task("a"), task("b", needs=("a",), approval=True), configs=(AGAIN,)))
    leader = await here.lead()
    await leader.run()
    (spare,) = await spares(here)
    assert here.host.stopped_clocks == {spare.folder}
    here.host.plays("b", lambda _process, _text: None)
    await approve(here, "b")
    await leader.run()
    assert here.host.processes[0].task == "b"
    assert here.host.stopped_clocks == set()


async def test_what_checks_kept_for_themselves_is_gone_with_their_task(here: SmallWorld) -> None:
    here.host.otherwise = does
    await here.submit(run_spec(task("a"), task("b", needs=("a",), approval=True), configs=(AGAIN,)))
    leader = await here.lead()
    await leader.run()
    (spare,) = await spares(here)
    assert here.ports.folders.checks(spare.workspace_id) in here.git.removed


async def test_one_that_had_a_task_of_the_run_goes_before_those_that_anybody_can_use(here: SmallWorld) -> None:
    here.host.otherwise = does
    here.host.plays("a", lambda _process, _text: None)
    config = replace(AGAIN, pool=PoolRules(warm=1))
    await here.submit(run_spec(task("a"), task("b", needs=("a",), approval=True), task("c", needs=("b",)), configs=(config,)))
    leader = await here.lead()
    await leader.run()
    here.clock.move(timedelta(seconds=5))
    (process,) = here.host.of_task("a")
    does(process, "")
    await leader.run()
    mine = [spare.agent_id for spare in await spares(here) if spare.run_id is not None]
    assert len(mine) == 1
    await approve(here, "b")
    await leader.run()
    assert [event.agent_id for event in await here.events(SpareGiven, "b")] == mine
