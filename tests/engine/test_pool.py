from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kapelle.core.agent import AgentConfig, AgentState, PoolRules
from kapelle.core.conversation import Trouble
from kapelle.core.events import AgentAdopted, AgentDeployed, WorkspacePrepared
from kapelle.core.hours import WorkingHours, parse_window
from kapelle.core.ids import RunId
from kapelle.core.pool import Spare, SpareState, make_of
from kapelle.core.pool_events import PoolScaled, SpareEnded, SpareFailed, SpareGiven, SpareReady, TaskAssigned
from kapelle.core.ports import Measure
from kapelle.core.requests import Cancel, Deploy, Pause, Resume, Scale
from kapelle.core.run import RunSpec, WorkspaceRules
from kapelle.core.task import Priority, TaskState, WorkspaceKind
from kapelle.engine.pool import AGAIN
from kapelle.engine.reuse import PATIENCE
from kapelle.testing.factories import CODER, run_spec, task
from kapelle.testing.hosts import ScriptedProcess, hangs, troubled, writes
from kapelle.testing.worlds import Leader, SmallWorld


def warm(count: int = 1, **rules: Any) -> AgentConfig:
    return replace(CODER, pool=PoolRules(warm=count, **rules))


def spec(*names: str, config: AgentConfig | None = None, **changes: Any) -> RunSpec:
    # In this order: each goes before the next.
    order = [Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW]
    tasks = [task(name, priority=priority) for name, priority in zip(names or ("api",), order, strict=False)]
    return run_spec(*tasks, configs=(config or warm(),), **changes)


def made(config: AgentConfig | None = None) -> RunSpec:
    """Return what spares are made by where there is no run."""
    found = make_of(spec(config=config), "coder")
    assert found is not None
    return found


async def spares(here: SmallWorld) -> list[Spare]:
    return await here.store.read(lambda view: list(view.spares.all()))


def processes(here: SmallWorld, task: str = "spare") -> list[ScriptedProcess]:
    """Return the live processes that believe to have this task."""
    return [process for process in here.host.live() if process.task == task]


async def begun(here: SmallWorld, run: RunSpec) -> Leader:
    """Return a leader that has a spare for every task of *run*, and placed none yet."""
    await here.submit(run)
    leader = await here.lead()
    await leader.step("submit", "pool", "pool")
    return leader


async def test_spares_wait_in_workspaces_that_are_ready(here: SmallWorld) -> None:
    leader = await begun(here, spec(config=warm(2)))
    await leader.step("pool")
    made = await spares(here)
    assert [spare.state for spare in made] == [SpareState.READY] * 2
    assert len(processes(here)) == 2
    assert {process.launch.cwd for process in processes(here)} == {spare.path for spare in made}
    assert {spare.base for spare in made} == {here.target}
    assert len(await here.events(SpareReady)) == 2


async def test_a_task_is_given_a_spare_and_its_agent_is_that_process(here: SmallWorld) -> None:
    leader = await begun(here, spec(config=warm(1)))
    await leader.step("pool")
    (spare,) = await spares(here)
    (process,) = processes(here)
    here.host.plays("api", writes({"a.py": "1"}))
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED
    (attempt,) = await here.attempts()
    assert (attempt.attempt_id, attempt.conversation_id) == (spare.attempt_id, spare.conversation_id)
    assert [(event.agent_id, event.pid) for event in await here.events(AgentDeployed)] == [(spare.agent_id, process.ref.pid)]
    assert len(await here.events(SpareGiven)) == 1
    assert process.task == "api"
    assert [prompt.text for prompt in process.prompts] == ["do api"]
    assert len(await here.events(WorkspacePrepared)) == 1


async def test_the_time_limit_of_a_spare_begins_with_its_task(here: SmallWorld) -> None:
    leader = await begun(here, spec())
    await leader.step("pool")
    (process,) = processes(here)
    assert process.launch.limit is None
    await leader.run()
    assert process.launch.limit == task().timeout


async def test_another_takes_the_place_of_a_spare_that_was_given(here: SmallWorld) -> None:
    leader = await begun(here, spec("a", config=warm(1)))
    await leader.step("pool")
    first = processes(here)[0]
    await leader.run()
    assert first.task == "a"
    assert [spare.state for spare in await spares(here)] == [SpareState.READY]
    assert len(processes(here)) == 1


async def test_a_spare_that_does_not_hear_is_ended_and_tasks_do_not_wait_for_it(here: SmallWorld) -> None:
    def goes_deaf(process: ScriptedProcess) -> None:
        process.deaf = True

    here.host.starts("spare", goes_deaf)
    here.host.otherwise = lambda process, _: writes({f"{process.task}.py": "1"})(process, "")
    leader = await begun(here, spec("a"))
    await leader.step("pool")
    assert [spare.state for spare in await spares(here)] == [SpareState.STARTING]
    await leader.run()
    assert (await here.task("a")).state is TaskState.COMPLETED
    here.clock.move(PATIENCE)
    await leader.step("pool", "pool", "pool")
    (failed,) = await here.events(SpareFailed)
    assert "did not begin a conversation" in failed.reason
    await leader.run()
    assert here.host.live() == []


async def test_a_spare_is_used_once(here: SmallWorld) -> None:
    here.host.otherwise = lambda process, _: writes({f"{process.task}.py": "1"})(process, "")
    leader = await begun(here, spec("a", "b", "c", config=warm(1)))
    await leader.run()
    found = await here.tasks()
    assert {entry.state for entry in found.values()} == {TaskState.COMPLETED}
    assert len({process.ref for process in here.host.processes if process.task in found}) == 3


async def test_tasks_that_a_spare_does_not_suit_get_an_agent_of_their_own(here: SmallWorld) -> None:
    of_result = task("result", result_schema="{}")
    scratch = task("scratch", workspace=WorkspaceKind.SCRATCH, gate=None)
    other = task("other", agent="other")
    configs = (warm(), replace(CODER, name="other"))
    leader = await begun(here, run_spec(of_result, scratch, other, configs=configs))
    await leader.run()
    assert await here.events(SpareGiven) == []
    assert len(processes(here)) == 1


async def test_a_workspace_is_brought_to_what_was_merged_meanwhile(here: SmallWorld) -> None:
    here.host.plays("a", writes({"a.py": "1"}))
    here.set(slots=1)
    leader = await begun(here, spec("a", "b", config=warm(1)))
    await leader.run()
    assert (await here.task("a")).state is TaskState.COMPLETED
    given = next(process for process in here.host.live() if process.task == "b")
    assert given.directory.files["a.py"] == "1"
    (waiting,) = processes(here)
    assert waiting.directory.files["a.py"] == "1"


async def test_set_up_is_run_again_where_the_base_has_moved(here: SmallWorld) -> None:
    ran: list[str] = []

    def install(files: dict[str, str | None]) -> str | None:
        ran.append(" ".join(sorted(files)))
        return None

    here.host.commands["install"] = install
    here.host.plays("a", writes({"a.py": "1"}))
    here.set(slots=1)
    leader = await begun(here, spec("a", "b", config=warm(1), workspace=WorkspaceRules(setup=("install",))))
    await leader.run()
    assert any("a.py" in files for files in ran)
    given = next(process for process in here.host.live() if process.task == "b")
    assert given.directory.files["a.py"] == "1"


async def test_spares_follow_the_queue_up_to_the_most_there_may_be(here: SmallWorld) -> None:
    here.set(slots=1)
    leader = await begun(here, spec("a", "b", "c", "d", config=replace(CODER, pool=PoolRules(most=3))))
    await leader.run()
    assert await spares(here) == []
    # What has waited for a while is prepared for, and no sooner.
    here.clock.move(timedelta(seconds=2))
    await leader.run()
    assert len(await spares(here)) == 2


async def test_no_more_are_started_than_the_host_can_carry(here: SmallWorld) -> None:
    config = replace(warm(5), asks=replace(CODER.asks, memory=100))
    here.host.measured = Measure(memory=1000, memory_free=250, cpus=4)
    leader = await begun(here, spec(config=config))
    await leader.step("pool")
    assert len(await spares(here)) == 2


async def test_spares_that_nothing_asks_for_are_ended_after_a_while(here: SmallWorld) -> None:
    run_id = await here.submit(spec(config=warm(1, idle=timedelta(minutes=5))))
    leader = await here.lead()
    await leader.run()
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    assert [spare.state for spare in await spares(here)] == [SpareState.READY]
    here.clock.move(timedelta(minutes=5))
    await leader.run()
    assert await spares(here) == []
    assert here.host.live() == []
    assert [event.reason for event in await here.events(SpareEnded)] == ["nothing asks for it any more"]


async def test_a_spare_serves_a_later_run_of_the_same_kind(here: SmallWorld) -> None:
    first = await here.submit(spec("a", config=warm(1)))
    leader = await here.lead()
    await leader.run()
    await here.ask(Cancel(run_id=first))
    await leader.run()
    (left,) = await spares(here)
    await here.submit(spec("b", config=warm(1)))
    await leader.run()
    assert [event.agent_id for event in await here.events(SpareGiven, "b")] == [left.agent_id]


async def test_a_paused_run_asks_for_none(here: SmallWorld) -> None:
    run_id = await here.submit(spec())
    leader = await here.lead()
    await here.ask(Pause(run_id=run_id))
    await leader.run()
    assert await spares(here) == []


async def test_a_spare_that_ends_by_itself_is_told_of_and_none_is_tried_for_a_while(here: SmallWorld) -> None:
    leader = await begun(here, spec("a", config=warm(1)))
    here.host.otherwise = hangs()
    await leader.run()
    processes(here)[0].exit(3)
    await leader.run()
    assert await spares(here) == []
    (failed,) = await here.events(SpareFailed)
    assert "exit code 3" in failed.reason
    here.clock.move(AGAIN)
    await leader.run()
    assert len(await spares(here)) == 1


async def test_the_end_of_one_does_not_end_the_others(here: SmallWorld) -> None:
    run_id = await here.submit(spec(config=warm(3, idle=timedelta(seconds=10))))
    leader = await here.lead()
    await here.ask(Pause(run_id=run_id))
    await leader.run()
    await here.ask(Resume(run_id=run_id))
    await leader.step("submit", "pool", "pool")
    await leader.step("pool")
    processes(here)[0].exit(3)
    await leader.step("pool", "pool")
    here.clock.move(timedelta(seconds=30))
    await leader.step("pool", "pool")
    assert len(processes(here)) == 2
    assert len(await here.events(SpareEnded)) == 1


async def test_spares_are_brought_up_to_date_one_after_the_other(here: SmallWorld) -> None:
    leader = await begun(here, spec("a", config=warm(3)))
    await leader.step("pool")
    here.points.hold("put")
    here.repository.push({"theirs.py": "1"})
    here.clock.move(timedelta(seconds=10))
    await leader.step("pool", "pool")
    states = [spare.state for spare in await spares(here)]
    assert sorted(states) == [SpareState.READY, SpareState.READY, SpareState.RENEWING]
    here.points.release("put")
    for _ in range(8):
        await leader.step("pool")
    assert {spare.base for spare in await spares(here)} == {here.target}


async def test_spares_are_for_tasks_that_can_be_given_one(here: SmallWorld) -> None:
    here.set(slots=1)
    tasks = [task("a"), *(task(f"r{number}", result_schema="{}") for number in range(3))]
    config = replace(CODER, pool=PoolRules(most=3))
    await here.submit(run_spec(*tasks, configs=(config,)))
    leader = await here.lead()
    await leader.run()
    here.clock.move(timedelta(seconds=2))
    await leader.run()
    assert len(await spares(here)) <= 1


async def test_where_set_up_fails_the_task_says_so_and_not_only_the_pool(here: SmallWorld) -> None:
    here.host.commands["install"] = lambda _: "no network"
    await here.submit(spec("a", config=warm(1), workspace=WorkspaceRules(setup=("install",))))
    leader = await here.lead()
    await leader.run_out()
    assert (await here.task("a")).state is TaskState.FAILED
    assert "no network" in (await here.events(SpareFailed))[0].reason


async def test_a_cancelled_task_ends_the_agent_that_was_a_spare(here: SmallWorld) -> None:
    leader = await begun(here, spec("a", config=warm(1)))
    await leader.step("pool", "dispatch")
    run = await here.store.read(lambda view: next(iter(view.runs.open())))
    await here.ask(Cancel(run_id=run.run_id))
    await leader.step("submit", "execute")
    await leader.run()
    here.clock.move(timedelta(hours=1))
    await leader.run()
    assert here.host.live() == []
    agents = await here.store.read(lambda view: list(view.agents.live()))
    assert agents == []


async def test_a_new_leader_ends_the_spares_of_the_old_one(here: SmallWorld) -> None:
    leader = await begun(here, spec("a", config=warm(2)))
    await leader.step("pool")
    old = [process.ref for process in processes(here)]
    assert len(old) == 2
    await leader.die()
    later = await here.lead()
    await later.run()
    assert not {process.ref for process in here.host.live()} & set(old)
    assert {spare.term for spare in await spares(here)} == {later.term}


async def test_a_spare_that_was_given_and_not_told_yet_is_replaced_by_the_next_leader(here: SmallWorld) -> None:
    leader = await begun(here, spec("a", config=warm(1)))
    await leader.step("pool", "dispatch")
    (agent,) = await here.store.read(lambda view: list(view.agents.live()))
    assert agent.state is AgentState.DEPLOYING
    await leader.die()
    here.host.plays("a", writes({"a.py": "1"}))
    later = await here.lead()
    await later.run()
    assert (await here.task("a")).state is TaskState.COMPLETED
    assert len(await here.attempts("a")) == 1
    assert await here.events(AgentAdopted) == []


async def test_a_person_says_how_many_there_are(here: SmallWorld) -> None:
    await here.submit(spec("a", "b", "c", config=warm(1)))
    leader = await here.lead()

    async def scale(wanted: int) -> None:
        await here.ask(Scale(project="", config="coder", wanted=wanted, spec=made()))
        await leader.run()

    await scale(2)
    assert (len(here.host.live()), len(await spares(here))) == (2, 0)
    await scale(4)
    assert (len(here.host.live()), len(await spares(here))) == (4, 1)
    await scale(0)
    assert (len(here.host.live()), len(await spares(here))) == (3, 0)
    await here.ask(Scale(project="", config="coder", wanted=None))
    await leader.run()
    assert len(await spares(here)) == 1
    assert [event.wanted for event in await here.events(PoolScaled)] == [2, 4, 0, None]


async def test_after_trouble_an_attempt_that_began_with_a_spare_goes_on_in_its_conversation(here: SmallWorld) -> None:
    here.host.plays("a", troubled(Trouble.OVERLOADED), writes({"a.py": "1"}))
    leader = await begun(here, spec("a", config=warm(1)))
    await leader.step("pool")
    await leader.run_out()
    assert (await here.task("a")).state is TaskState.COMPLETED
    (attempt,) = await here.attempts("a")
    assert [process.conversation_id for process in here.host.of_task("a")] == [attempt.conversation_id] * 2


async def test_agents_stand_ready_without_any_run(here: SmallWorld) -> None:
    leader = await here.lead()
    await here.ask(Scale(project="", config="coder", wanted=1, more=True, spec=made(CODER)))
    await leader.run()
    await here.ask(Scale(project="", config="coder", wanted=1, more=True, spec=made(CODER)))
    await leader.run()
    assert len(processes(here)) == 2
    here.host.otherwise = lambda process, _: writes({f"{process.task}.py": "1"})(process, "")
    await here.submit(spec("a", config=CODER))
    await leader.run()
    assert len(await here.events(SpareGiven, "a")) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"configs": (replace(CODER, program="once"),)}, "not started beforehand"),
        ({"repository": None}, "outside of a repository"),
    ],
)
async def test_what_cannot_be_started_beforehand_is_refused(here: SmallWorld, changes: Any, words: str) -> None:
    await here.lead()
    leader = here.leaders[-1]
    asked = await here.ask(Scale(project="", config="coder", wanted=1, spec=replace(made(CODER), **changes)))
    await leader.run()
    assert words in (await here.refusal(asked) or "")
    assert await here.events(PoolScaled) == []


async def given(here: SmallWorld, leader: Leader, name: str, config: str, *, force: bool = False) -> str:
    """Give a task to a config; return why it was refused."""
    found = await here.task(name)
    asked = await here.ask(Deploy(run_id=found.run_id, task_id=found.task_id, config=config, force=force))
    await leader.run()
    return await here.refusal(asked) or ""


async def test_a_person_gives_a_task_to_a_config_before_all_others(here: SmallWorld) -> None:
    here.set(slots=1)
    other = replace(CODER, name="other")
    await here.submit(run_spec(task("a"), task("b"), task("c", priority=Priority.LOW), configs=(CODER, other)))
    leader = await here.lead()
    await leader.run()
    assert await given(here, leader, "c", "other") == ""
    process = here.host.live()[0]
    process.write("x.py", "1")
    process.done()
    await leader.run()
    (attempt,) = await here.attempts("c")
    assert attempt.config == "other"
    assert len(await here.events(TaskAssigned, "c")) == 1


async def test_with_force_no_limit_holds_it_up(here: SmallWorld) -> None:
    here.set(slots=1)
    await here.submit(spec("a", "b", config=CODER))
    leader = await here.lead()
    await leader.run()
    assert await given(here, leader, "b", "coder", force=True) == ""
    assert {process.task for process in here.host.live()} == {"a", "b"}


async def test_a_task_is_not_given_away_a_second_time(here: SmallWorld) -> None:
    here.set(slots=1)
    other = replace(CODER, name="other", capabilities=("go",))
    await here.submit(run_spec(task("a"), task("b", requires=("go",)), configs=(CODER, other)))
    leader = await here.lead()
    await leader.run()
    running, waiting = sorted(("a", "b"), key=lambda name: name not in {process.task for process in here.host.live()})
    assert "is assigned already: it has the agent g-" in await given(here, leader, running, "other", force=True)
    if waiting == "b":
        assert "requires go" in await given(here, leader, "b", "coder")
    assert await given(here, leader, waiting, "other") == ""
    assert "was given to other already" in await given(here, leader, waiting, "other")
    assert "was submitted without nobody" in await given(here, leader, waiting, "nobody")


async def test_a_paused_task_is_not_begun_because_it_was_given_away(here: SmallWorld) -> None:
    here.set(slots=1)
    await here.submit(spec("a", "b", config=CODER))
    leader = await here.lead()
    await leader.run()
    found = await here.task("b")
    await here.ask(Pause(run_id=found.run_id, task_id=found.task_id))
    assert await given(here, leader, "b", "coder", force=True) == ""
    assert (await here.task("b")).state is TaskState.PENDING
    await here.ask(Resume(run_id=found.run_id, task_id=found.task_id))
    await leader.run()
    assert (await here.task("b")).state is TaskState.RUNNING


async def test_the_most_there_may_be_holds_for_runs_that_differ_too(here: SmallWorld) -> None:
    config = warm(2, most=3)
    await here.submit(spec("a", config=config))
    await here.submit(spec("b", config=config, workspace=WorkspaceRules(ports=1)))
    leader = await here.lead()
    await leader.run()
    assert len(here.host.live()) <= 3


async def test_what_a_person_wants_holds_for_runs_that_differ_too(here: SmallWorld) -> None:
    await here.submit(spec("a", config=warm(1)))
    leader = await here.lead()
    await here.ask(Scale(project="", config="coder", wanted=2, spec=made()))
    await leader.run()
    await here.submit(spec("b", config=warm(1), workspace=WorkspaceRules(ports=1)))
    await leader.run()
    assert len(here.host.live()) == 2


async def test_those_at_work_finish_whatever_a_person_wants(here: SmallWorld) -> None:
    here.host.plays("a", troubled(Trouble.OVERLOADED), writes({"a.py": "1"}))
    await here.submit(spec("a", config=CODER))
    leader = await here.lead()
    await leader.run()
    await here.ask(Scale(project="", config="coder", wanted=0, spec=made()))
    await leader.run_out()
    assert (await here.task("a")).state is TaskState.COMPLETED


async def test_spares_are_started_when_memory_is_free_again(here: SmallWorld) -> None:
    config = replace(CODER, asks=replace(CODER.asks, memory=100))
    here.host.measured = Measure(memory=1000, memory_free=50, cpus=4)
    leader = await here.lead()
    await here.ask(Scale(project="", config="coder", wanted=1, spec=made(config)))
    wake = await leader.run()
    assert await spares(here) == []
    assert wake is not None
    here.host.measured = Measure(memory=1000, memory_free=500, cpus=4)
    here.clock.move_to(wake)
    await leader.run()
    assert len(await spares(here)) == 1


async def test_files_that_are_copied_in_are_as_they_are_when_a_task_begins(here: SmallWorld) -> None:
    leader = await begun(here, spec("a", workspace=WorkspaceRules(copy=(".env",))))
    await leader.run()
    assert await spares(here) == []


async def test_work_in_what_an_older_store_takes_for_a_spare_is_kept(here: SmallWorld) -> None:
    leader = await begun(here, spec("a", config=warm(1)))
    await leader.step("pool")
    (process,) = processes(here)
    # The store knows nothing of it: it was restored from a backup.
    process.directory.files["precious.py"] = "1"
    await leader.die()
    await here.lead()
    assert any("precious.py" in here.repository.files(commit) for commit in here.kept.values())


async def test_what_replaces_a_spare_begins_a_conversation_of_its_own(here: SmallWorld) -> None:
    """The spare had begun one already, and no program begins one that there is."""
    leader = await begun(here, spec("a", config=warm(1)))
    await leader.step("pool", "dispatch")
    await leader.die()
    here.host.plays("a", writes({"a.py": "1"}))
    later = await here.lead()
    await later.run()
    assert (await here.task("a")).state is TaskState.COMPLETED
    (process,) = here.host.of_task("a")
    assert (await here.attempts("a"))[0].conversation_id == process.conversation_id


async def test_a_spare_that_ends_just_when_it_is_given_is_replaced_without_a_crash(here: SmallWorld) -> None:
    here.host.plays("a", writes({"a.py": "1"}))
    leader = await begun(here, spec("a", config=warm(1)))
    await leader.step("pool", "dispatch")
    processes(here)[0].exit(1)
    await leader.run()
    assert (await here.task("a")).state is TaskState.COMPLETED
    assert [attempt.crashes for attempt in await here.attempts("a")] == [0]
    assert len(here.host.of_task("a")) == 1


async def test_what_set_up_said_for_nobody_is_not_kept(here: SmallWorld) -> None:
    """Neither of a spare that was ended nor of one that was given to a task."""
    here.host.commands["install"] = lambda _: None
    here.host.otherwise = lambda process, _: writes({f"{process.task}.py": "1"})(process, "")
    leader = await begun(here, spec("a", config=warm(1), workspace=WorkspaceRules(setup=("install",))))
    await leader.step("pool")
    first = [spare.workspace_id for spare in await spares(here)]
    await leader.run()
    second = [spare.workspace_id for spare in await spares(here)]
    here.clock.move(timedelta(minutes=10))
    await leader.run()
    assert await spares(here) == []
    for workspace_id in (*first, *second):
        assert here.ports.folders.log(RunId("pool"), "", f"{workspace_id}-setup-0") in here.git.removed


async def test_a_workspace_that_takes_long_to_make_is_no_fault_of_its_program(here: SmallWorld) -> None:
    """A large repository, or many at once: its time to begin a conversation begins with the program."""
    here.points.hold("start")
    leader = await begun(here, spec("a", config=warm(1)))
    here.clock.move(PATIENCE)
    here.points.hold("write")
    here.points.release("start")
    await leader.step("pool", "pool")
    here.points.release("write")
    await leader.step("pool", "pool", "pool")
    assert await here.events(SpareFailed) == []
    assert [spare.state for spare in await spares(here)] == [SpareState.READY]


async def test_few_are_started_at_once(here: SmallWorld) -> None:
    here.host.measured = Measure(memory=1 << 40, memory_free=1 << 40, cpus=1.0)
    here.set(slots=5)
    here.points.hold("start")
    leader = await begun(here, spec("a", config=warm(5)))
    await leader.step("pool")
    assert len(await spares(here)) == 2
    here.points.release("start")
    for _ in range(8):
        await leader.step("pool")
    assert [spare.state for spare in await spares(here)] == [SpareState.READY] * 5


@pytest.mark.parametrize(("slots", "limit"), [(2, None), (8, 2)])
async def test_no_more_wait_than_may_ever_be_at_work_at_once(here: SmallWorld, slots: int, limit: int | None) -> None:
    here.set(slots=slots)
    leader = await begun(here, spec("a", config=replace(warm(5), limit=limit)))
    await leader.step("pool", "pool")
    assert len(await spares(here)) == 2


async def test_outside_of_the_working_hours_nobody_stands_ready(here: SmallWorld) -> None:
    begins = here.clock.now() + timedelta(hours=2)
    hours = WorkingHours(windows=(parse_window(f"daily {begins:%H:%M}-{begins + timedelta(hours=8):%H:%M}"),))
    await here.submit(spec("a", config=warm(1), hours=hours))
    leader = await here.lead()
    await leader.run()
    assert await spares(here) == []
    here.clock.move(timedelta(hours=2))
    await leader.run()
    assert len(await spares(here)) == 1


async def test_what_fails_again_and_again_is_tried_more_and_more_seldom(here: SmallWorld) -> None:
    here.host.commands["install"] = lambda _: "no network"
    made_by = replace(made(), workspace=WorkspaceRules(setup=("install",)))
    leader = await here.lead()
    await here.ask(Scale(project="", config="coder", wanted=1, spec=made_by))
    await leader.run()
    tried = [len(await here.events(SpareFailed))]
    for _ in range(6):
        here.clock.move(AGAIN)
        await leader.run()
        tried.append(len(await here.events(SpareFailed)))
    assert tried == [1, 2, 2, 3, 3, 3, 3]
