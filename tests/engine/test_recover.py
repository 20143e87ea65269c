"""A leader that dies, and the one that takes over from it."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from kapelle.core.agent import AgentState, ProcessRef
from kapelle.core.attempt import PromptState
from kapelle.core.errors import HostFailed, WorkspaceFailed
from kapelle.core.events import AgentAdopted, AgentReaped, AgentSaid, AttemptStarted, LeadTaken, PromptSent, SnapshotKept
from kapelle.core.isolation_events import SandboxLeft
from kapelle.core.merge import DeliveryMode
from kapelle.core.requests import Cancel
from kapelle.core.store import Tx
from kapelle.core.task import TaskState
from kapelle.engine.integrate import integration_ref
from kapelle.testing.factories import PROJECT, run_spec, task
from kapelle.testing.hosts import ScriptedProcess, crashes, writes
from kapelle.testing.stores import LeaderDied
from kapelle.testing.worlds import Leader, SmallWorld


async def take_over(here: SmallWorld, leader: Leader) -> Leader:
    await leader.die()
    here.points.heal()
    here.store.heal()
    return await here.lead()


async def test_every_lead_is_told_with_its_term(here: SmallWorld) -> None:
    first = await here.lead()
    second = await take_over(here, first)
    assert [event.term for event in await here.events(LeadTaken)] == [first.term, second.term]
    assert second.term > first.term


async def test_recovery_happens_once(here: SmallWorld) -> None:
    leader = await here.lead()
    await leader.run()
    assert len(await here.events(LeadTaken)) == 1


# --- Adoption ---


async def test_an_agent_that_lives_on_is_adopted_and_its_answer_counts(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    successor = await take_over(here, leader)
    await successor.run()
    (event,) = await here.events(AgentAdopted)
    process = here.process()
    assert event.agent_id in {agent.agent_id for agent in await here.store.read(lambda view: view.agents.live())}
    writes({"api.py": "1"})(process, "")
    await successor.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert here.host.of_task("api") == [process]
    assert len(await here.prompts()) == 1


async def test_a_new_leader_stamps_what_it_adopts_with_its_term(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    successor = await take_over(here, leader)
    await successor.run()
    (agent,) = await here.store.read(lambda view: view.agents.live())
    assert agent.term == successor.term
    assert [attempt.term for attempt in await here.attempts()] == [successor.term]


async def test_what_an_agent_said_while_nobody_led_is_read_from_where_the_last_leader_was(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.process().say("one")
    await leader.run()
    await leader.die()
    here.process().say("two")
    writes({"api.py": "1"})(here.process(), "")
    successor = await here.lead()
    await successor.run_out()
    assert [event.text for event in await here.events(AgentSaid)] == ["one", "two"]
    assert (await here.task()).state is TaskState.COMPLETED


async def test_an_agent_that_was_cut_off_in_the_middle_of_a_line_is_read_on(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    process = here.process()
    process.write("api.py", "1")
    process.babble('{"done": "did')
    await leader.run()
    await leader.die()
    process.babble(' it"}\n')
    process.exit(0)
    successor = await here.lead()
    await successor.run_out()
    completed = await here.task()
    assert (completed.state, completed.summary) == (TaskState.COMPLETED, "did it")


async def test_an_adopted_agent_that_answers_is_resumed_for_the_next_round(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    successor = await take_over(here, leader)
    await successor.run()
    writes({"api.py": "broken"})(here.process(), "")
    here.host.plays("api", writes({"api.py": "mended"}))
    await successor.run_out()
    first, second = here.host.of_task("api")
    assert second.resumed
    assert second.conversation_id == first.conversation_id
    assert (await here.task()).state is TaskState.COMPLETED
    assert [prompt.round for prompt in await here.prompts()] == [0, 1]


async def test_an_idle_agent_of_a_dead_leader_is_resumed(here: SmallWorld) -> None:
    here.points.hold("run")
    here.host.plays("api", writes({"api.py": "broken"}), writes({"api.py": "mended"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    successor = await take_over(here, leader)
    assert here.host.live() == []
    await successor.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert (await here.attempts())[0].crashes == 0


# --- Crashes at every place ---


POINTS = (
    "prepare",
    "prepare:done",
    "start",
    "start:done",
    "write",
    "write:done",
    "commit",
    "commit:done",
    "run",
    "run:done",
    "put:done",
    "end",
    "end:done",
    "merge",
    "merge:done",
    "move_ref",
    "deliver",
    "deliver:done",
    "snapshot:done",
    "remove",
    "remove:done",
)


@pytest.mark.parametrize("point", POINTS)
async def test_work_is_done_once_whatever_act_a_leader_dies_in(here: SmallWorld, point: str) -> None:
    here.host.otherwise = writes({"api.py": "1"})
    run_id = await here.submit(run_spec(task("api", max_attempts=1)))
    here.points.hold(point)
    leader = await here.lead()
    await leader.run()
    successor = await take_over(here, leader)
    await successor.run_out()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)
    assert here.repository.files("main") == {"README.md": "hello", "api.py": "1"}
    assert here.host.live() == []
    assert here.git.directories == {}
    assert (await here.run(run_id)).ended_at is not None
    assert len(await here.events(AttemptStarted)) == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_work_is_done_once_whatever_commit_a_leader_dies_in(here: SmallWorld, after: bool) -> None:
    here.host.otherwise = writes({"api.py": "1"})
    run_id = await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    died = 0
    for commit in range(1, 200):
        here.store.die(commits=commit, after=after)
        try:
            await leader.run_out()
        except LeaderDied:
            died += 1
            leader = await take_over(here, leader)
            await leader.run()
            continue
        break
    assert died > 0
    assert (await here.task()).state is TaskState.COMPLETED
    assert here.repository.files("main") == {"README.md": "hello", "api.py": "1"}
    assert (await here.run(run_id)).ended_at is not None


async def test_a_task_that_was_given_an_agent_and_no_more_is_not_forgotten(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.step("submit", "dispatch")
    assert (await here.task()).state is TaskState.ASSIGNED
    successor = await take_over(here, leader)
    await successor.run()
    assert (await here.task()).state is TaskState.RUNNING
    assert len(await here.attempts()) == 1


async def test_a_leader_that_dies_again_and_again_uses_up_no_attempt(here: SmallWorld) -> None:
    here.points.hold("write")
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    for _ in range(6):
        await leader.run_out()
        await leader.die()
        leader = await here.lead()
    here.points.heal()
    here.host.otherwise = writes({"api.py": "1"})
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert (await here.attempts())[0].crashes == 0


async def test_an_agent_that_crashes_after_its_leader_died_is_resumed(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    await leader.die()
    here.process().exit(137)
    here.host.otherwise = writes({"api.py": "1"})
    successor = await here.lead()
    await successor.run_out()
    assert here.process().prompts[0].text.startswith("You were cut off")
    assert (await here.task()).state is TaskState.COMPLETED


async def test_a_prompt_is_never_sent_under_two_ids_however_often_leaders_die(here: SmallWorld) -> None:
    here.points.hold("write")
    await here.submit(run_spec())
    leader = await here.lead()
    for _ in range(2):
        await leader.run_out()
        await leader.die()
        leader = await here.lead()
    here.points.heal()
    await leader.run_out()
    (prompt,) = await here.prompts()
    assert prompt.state is PromptState.TAKEN
    assert {event.prompt_id for event in await here.events(PromptSent)} == {prompt.prompt_id}
    assert [read.prompt_id for process in here.host.processes for read in process.prompts] == [prompt.prompt_id]


# --- What must not be left lying about ---


async def test_a_process_without_a_row_is_reaped(here: SmallWorld) -> None:
    await here.submit(run_spec())
    here.points.hold("start:done")
    leader = await here.lead()
    await leader.run()
    lost = here.process()
    lost.in_turn = True
    successor = await take_over(here, leader)
    assert not lost.alive
    assert [event.pid for event in await here.events(AgentReaped)] == [lost.ref.pid]
    await successor.run()
    assert here.host.live() == [here.process()]


async def left_by_an_agent(here: SmallWorld, leader: Leader) -> ScriptedProcess:
    """Let a live agent's row no longer name its process, as if that were one of many of it; return it."""
    (agent,) = await here.store.read(lambda view: view.agents.live())
    other = ProcessRef(boot_id="b", pid=999_999, started="long ago")
    await here.store.transact(lambda tx: tx.agents.put(replace(agent, process=other)), term=leader.term)
    return here.process()


async def test_what_a_sandbox_says_is_of_a_live_agent_is_left_alone(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    mine = await left_by_an_agent(here, leader)
    (agent,) = await here.store.read(lambda view: view.agents.live())
    asked: list[tuple[str, set[str]]] = []

    def within(store_id: str, keys: Collection[str]) -> list[ProcessRef]:
        asked.append((store_id, set(keys)))
        return [mine.ref]

    here.sandbox.within = within
    await leader.die()
    await here.lead()
    assert mine.alive
    assert await here.events(AgentReaped) == []
    assert asked[0] == (here.store.store_id, {agent.agent_id})


async def test_what_is_of_whom_cannot_be_told_is_left_alone(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    mine = await left_by_an_agent(here, leader)

    def within(_store_id: str, _keys: Collection[str]) -> list[ProcessRef]:
        raise HostFailed("it does not answer")

    here.sandbox.within = within
    await leader.die()
    await here.lead()
    assert mine.alive
    (told,) = await here.events(SandboxLeft)
    assert (told.sandbox, told.reason.splitlines()[0]) == ("process", "it does not answer")


async def test_a_process_of_another_store_is_left_alone(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.process().env["KAPELLE_STORE"] = "another"
    await leader.die()
    (agent,) = await here.store.read(lambda view: view.agents.live())
    assert agent.state is AgentState.ACTIVE
    await here.lead()
    assert here.process().alive
    assert await here.events(AgentReaped) == []


async def test_an_agent_whose_task_was_cancelled_while_nobody_led_is_ended(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    await leader.die()
    await here.ask(Cancel(run_id=run_id))
    successor = await here.lead()
    await successor.run()
    assert here.host.live() == []
    assert here.git.directories == {}


async def test_a_repository_that_is_gone_keeps_nobody_from_leading(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    await leader.die()
    del here.git.repositories[PROJECT]
    await here.submit(run_spec(task("other", agent="nobody"), repository=None, target=None))
    successor = await here.lead()
    await successor.run()
    assert (await here.task("other")).state is TaskState.COMPLETED


async def test_a_repository_that_disappears_with_its_workspaces_does_not_keep_the_leader_busy(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    del here.git.repositories[PROJECT]
    crashes()(here.process(), "")
    await leader.run()
    assert here.points.passed.count("snapshot") <= 1


# --- When the store was restored from a backup, and knows less than the world ---


async def forgotten(here: SmallWorld) -> str:
    """Let an agent be at work in a workspace, and the store know of neither; return the workspace."""
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    process = here.process()
    process.write("api.py", "half done")
    path = process.launch.cwd
    (row,) = [row for row in await here.store.read(lambda view: view.agents.workspaces()) if row.path == path]

    def forget(tx: Tx) -> None:
        tx.agents.drop_workspace(row.workspace_id)
        for agent in tx.agents.live():
            tx.agents.put(replace(agent, process=None, state=AgentState.STOPPED))
        for run in tx.runs.open():
            tx.runs.pause(run, paused=True)

    await here.store.transact(forget, term=leader.term)
    await leader.die()
    return path


async def test_what_an_agent_without_a_row_did_is_kept_and_then_it_is_ended(here: SmallWorld) -> None:
    path = await forgotten(here)
    await here.lead()
    assert here.host.live() == []
    assert path not in here.git.directories
    (kept,) = here.kept.values()
    assert here.repository.files(kept)["api.py"] == "half done"
    assert {event.commit for event in await here.events(SnapshotKept)} == {kept}


async def test_a_workspace_without_a_row_stays_when_it_cannot_be_kept(here: SmallWorld) -> None:
    path = await forgotten(here)
    here.points.fail("snapshot", WorkspaceFailed("the disk is full"), times=9)
    await here.lead()
    assert here.host.live() == []
    assert path in here.git.directories


async def test_merged_work_that_the_store_does_not_know_of_is_kept(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec(delivery=DeliveryMode.NEVER))
    leader = await here.lead()
    await leader.run()
    (older,) = await here.store.read(lambda view: view.changes.integrations())
    ref = integration_ref(here.store.store_id, "main", older.line)
    newer = here.repository.commit({"api.py": "2"}, [older.tip]).commit
    here.repository.move(ref, newer)
    await take_over(here, leader)
    assert here.repository.refs[ref] == older.tip
    assert newer in here.kept.values()
