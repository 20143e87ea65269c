from datetime import timedelta

import pytest

from kapelle.core.errors import WorkspaceFailed
from kapelle.core.events import AgentReaped, RunEnded, SnapshotKept, WorkspaceRemoved, WorkspaceStuck
from kapelle.core.merge import DeliveryMode
from kapelle.core.requests import Cancel
from kapelle.core.run import RunState
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import ScriptedProcess, answers, crashes, writes
from kapelle.testing.worlds import SmallWorld


def half_done(process: ScriptedProcess, _: str) -> None:
    process.write("half.py", "half")
    process.exit(1)


# --- Runs ---


async def test_a_run_ends_when_its_last_task_has(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec(task("api"), task("ui", reads_only=True)))
    leader = await here.lead()
    await leader.run()
    assert (await here.run(run_id)).state is RunState.RUNNING
    answers()(here.process("ui"), "")
    await leader.run()
    ended = await here.run(run_id)
    assert (ended.state, ended.ended_at, ended.unfinished) == (RunState.COMPLETED, here.clock.now(), 0)
    assert await here.events(RunEnded) == [RunEnded(run_id=run_id, state="completed", completed=2, failed=0, other=0)]


async def test_a_run_with_a_failed_task_has_failed(here: SmallWorld) -> None:
    here.host.otherwise = crashes()
    run_id = await here.submit(
        run_spec(task("api", max_attempts=1), task("ui", needs=("api",)), task("skip", when="false"), task("x", agent="nobody"))
    )
    leader = await here.lead()
    await leader.run_out()
    assert await here.events(RunEnded) == [RunEnded(run_id=run_id, state="failed", completed=1, failed=2, other=1)]


async def test_a_run_ends_once(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("api", agent="nobody")))
    leader = await here.lead()
    await leader.run()
    await leader.run()
    assert len(await here.events(RunEnded)) == 1
    assert (await here.run(run_id)).state is RunState.COMPLETED


async def test_a_run_of_nothing_ends_at_once(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(tasks=()))
    leader = await here.lead()
    await leader.run()
    assert (await here.run(run_id)).state is RunState.COMPLETED


async def test_a_run_is_delivered_before_it_ends(here: SmallWorld) -> None:
    here.points.hold("deliver")
    here.host.plays("api", writes({"api.py": "1"}))
    run_id = await here.submit(run_spec(delivery=DeliveryMode.END))
    leader = await here.lead()
    await leader.run()
    assert (await here.run(run_id)).state is RunState.DELIVERING
    here.points.release("deliver")
    await leader.run()
    assert (await here.run(run_id)).state is RunState.COMPLETED


# --- Workspaces ---


async def test_the_workspace_of_merged_work_is_removed_and_nothing_is_kept_of_it(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert here.git.directories == {}
    assert here.kept == {}
    assert [event.path for event in await here.events(WorkspaceRemoved)] == [here.process().launch.cwd]
    assert await here.store.read(lambda view: view.agents.workspaces()) == []


async def test_unmerged_work_is_kept_before_its_workspace_is_removed(here: SmallWorld) -> None:
    here.set(crashes=0)
    here.host.plays("api", half_done)
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    assert [name for name in here.points.passed if name in {"snapshot", "remove"}][:2] == ["snapshot", "remove"]
    ((ref, commit),) = here.kept.items()
    assert ref == f"refs/kapelle/{here.store.store_id}/kept/{await here.task_id()}/1"
    assert here.repository.files(commit) == {"README.md": "hello", "half.py": "half"}
    assert [(event.ref, event.commit) for event in await here.events(SnapshotKept)] == [(ref, commit)]
    assert here.git.directories == {}


async def test_every_attempts_work_is_kept_by_itself(here: SmallWorld) -> None:
    here.set(crashes=0)

    def numbered(process: ScriptedProcess, _: str) -> None:
        process.write("half.py", str(len(here.host.processes)))
        process.exit(1)

    here.host.otherwise = numbered
    await here.submit(run_spec(task("api", max_attempts=3)))
    leader = await here.lead()
    await leader.run_out()
    assert sorted(ref.rpartition("/")[2] for ref in here.kept) == ["1", "2", "3"]
    assert {here.repository.files(commit)["half.py"] for commit in here.kept.values()} == {"1", "2", "3"}


async def test_what_a_failed_gate_left_is_kept(here: SmallWorld) -> None:
    here.host.otherwise = writes({"api.py": "broken"})
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    (commit,) = here.kept.values()
    assert here.repository.files(commit)["api.py"] == "broken"


async def test_what_an_agent_did_after_its_work_was_merged_is_kept(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        writes({"api.py": "1"})(process, "")
        process.in_turn = True

    here.points.hold("end")
    here.host.plays("api", script)
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert (await here.task()).state is TaskState.COMPLETED
    here.process().write("afterthought.py", "1")
    here.points.release("end")
    await leader.run()
    (commit,) = here.kept.values()
    assert here.repository.files(commit) == {"README.md": "hello", "api.py": "1", "afterthought.py": "1"}


async def test_nothing_is_kept_of_a_workspace_in_which_nothing_was_done(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    assert here.kept == {}
    assert here.git.directories == {}


async def test_a_workspace_is_not_removed_while_its_agent_lives(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec())
    here.points.hold("end")
    leader = await here.lead()
    await leader.run()
    await here.ask(Cancel(run_id=run_id))
    await leader.run()
    assert len(here.git.directories) == 1
    assert "snapshot" not in here.points.passed


async def test_a_workspace_stays_while_its_change_waits_to_be_merged(here: SmallWorld) -> None:
    here.points.hold("merge")
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert here.host.live() == []
    assert len(here.git.directories) == 1


@pytest.mark.parametrize("point", ["snapshot", "remove"])
async def test_a_workspace_that_cannot_be_cleared_stays_and_is_tried_again_later(here: SmallWorld, point: str) -> None:
    here.set(crashes=0)
    here.points.fail(point, WorkspaceFailed("the disk is full"), times=3)
    here.host.plays("api", half_done)
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    later = await leader.run()
    assert here.points.passed.count(point) == 1
    assert len(here.git.directories) == 1
    assert [event.reason.partition("\n")[0] for event in await here.events(WorkspaceStuck)] == ["the disk is full"]
    assert later is not None
    assert timedelta(seconds=1) <= later - here.clock.now() <= timedelta(minutes=1)
    await leader.run_out()
    assert here.git.directories == {}
    assert len(here.kept) == 1


async def test_a_crash_between_snapshot_and_removal_loses_nothing(here: SmallWorld) -> None:
    here.set(crashes=0)
    here.points.hold("remove")
    here.host.plays("api", half_done)
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    await leader.die()
    here.points.heal()
    successor = await here.lead()
    await successor.run_out()
    assert here.git.directories == {}
    (commit,) = here.kept.values()
    assert here.repository.files(commit)["half.py"] == "half"


async def test_a_crash_between_removal_and_its_commit_is_made_good(here: SmallWorld) -> None:
    here.points.hold("remove:done")
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    await leader.die()
    here.points.heal()
    successor = await here.lead()
    await successor.run_out()
    assert await here.store.read(lambda view: view.agents.workspaces()) == []
    assert len(await here.events(WorkspaceRemoved)) == 1


async def test_the_place_where_merged_trees_are_gated_goes_with_its_run(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        here.repository.push({"theirs.py": "1"})
        writes({"api.py": "1"})(process, "")

    here.host.plays("api", script)
    await here.submit(run_spec(task("api"), task("ui", needs=("api",), reads_only=True)))
    leader = await here.lead()
    await leader.run()
    assert len([path for path in here.git.directories if "/gate-main-" in path]) == 1
    answers()(here.process("ui"), "")
    await leader.run()
    assert here.git.directories == {}


# --- What has left the group of its agent ---


async def test_what_left_the_group_of_its_agent_is_ended_before_the_workspace_is_kept(here: SmallWorld) -> None:
    """It would write after that still, and be lost."""
    here.set(crashes=0)
    left: list[ScriptedProcess] = []

    def starts_a_daemon(process: ScriptedProcess, text: str) -> None:
        left.append(here.host.left_behind(process))
        half_done(process, text)

    here.host.plays("api", starts_a_daemon)
    here.host.plays("ui", starts_a_daemon)
    await here.submit(run_spec(task("api", max_attempts=1), task("ui", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    assert [process.alive for process in left] == [False, False]
    assert {event.pid for event in await here.events(AgentReaped)} == {process.ref.pid for process in left}
    passed = [name for name in here.points.passed if name in {"end", "snapshot"}]
    assert passed.index("snapshot") > max(index for index, name in enumerate(passed) if name == "end")


async def test_what_belongs_to_a_live_agent_is_left_alone(here: SmallWorld) -> None:
    """A browser or a server that it works with may well have left its group."""
    left: list[ScriptedProcess] = []

    def starts_a_server(process: ScriptedProcess, _: str) -> None:
        left.append(here.host.left_behind(process))

    here.host.plays("ui", starts_a_server)
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec(task("api"), task("ui")))
    leader = await here.lead()
    await leader.run()
    assert [event.path for event in await here.events(WorkspaceRemoved)] == [here.process("api").launch.cwd]
    assert [process.alive for process in left] == [True]
    assert await here.events(AgentReaped) == []


async def test_workspaces_that_are_cleared_together_cost_one_look_at_the_machine(here: SmallWorld) -> None:
    here.host.otherwise = answers()
    await here.submit(run_spec(*[task(f"task-{number}", reads_only=True) for number in range(8)]))
    leader = await here.lead()
    before = here.host.looks
    await leader.run()
    assert len(await here.events(WorkspaceRemoved)) == 8
    assert here.host.looks - before <= 2
