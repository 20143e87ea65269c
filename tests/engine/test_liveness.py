"""Agents that look stuck: what each is taken for, how soon, and what is done about it; and that nobody else is disturbed."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from kapelle.apps.health import agents_health
from kapelle.core.attempt import PromptState
from kapelle.core.liveness import Condition, Grade
from kapelle.core.liveness_events import (
    AgentInterrupted,
    AgentNoted,
    AgentNudged,
    AgentProbed,
    AgentRecovered,
    AgentRestarted,
)
from kapelle.core.patience import Patience
from kapelle.core.steering import Freeze, StopAgent, Thaw
from kapelle.core.task import TaskState, Wait
from kapelle.testing.factories import CODER, run_spec
from kapelle.testing.hosts import writes
from kapelle.testing.liveness import (
    BEAT,
    CUT_STREAM,
    HEALTHY,
    SAME_CALL,
    SILENT_BUILD,
    SILENT_PROGRAM,
    SILENT_TOOL,
    STOPPED,
    STRAYING,
    STUCK,
    Script,
    begin,
    go_on,
    nothing,
    play,
    seen_of,
)
from kapelle.testing.worlds import SmallWorld

MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _looked_after(here: SmallWorld) -> None:
    here.set(heartbeat=BEAT)


@pytest.mark.parametrize("script", HEALTHY, ids=lambda script: script.name)
async def test_who_works_is_left_alone(here: SmallWorld, script: Script) -> None:
    seen = await play(here, script)
    assert (seen.found, seen.done) == ((), ())


@pytest.mark.parametrize("script", STUCK, ids=lambda script: script.name)
async def test_who_is_stuck_is_found_in_time(here: SmallWorld, script: Script) -> None:
    seen = await play(here, script)
    assert script.finds is not None
    after = seen.after(script.finds)
    assert after is not None, seen
    assert after <= script.within
    assert {found for _, found in seen.found} == {script.finds}
    assert seen.worst is script.up_to, seen


async def test_an_agent_that_was_stopped_by_a_signal_goes_on_and_its_work_is_merged(here: SmallWorld) -> None:
    scene = await begin(here, STOPPED)
    await go_on(scene, STOPPED, 2 * MINUTE)
    assert not scene.process.stopped
    scene.process.returns(call_id="long")
    writes({"api.py": "1"})(scene.process, "")
    await scene.leader.run()
    assert (await here.task()).state is TaskState.COMPLETED
    assert [type(event) for event in await here.events(AgentProbed)] == [AgentProbed]
    assert len(here.host.processes) == 1


async def test_an_agent_that_works_again_begins_with_a_clean_slate(here: SmallWorld) -> None:
    scene = await begin(here, SILENT_TOOL)
    await go_on(scene, SILENT_TOOL, 12 * MINUTE)
    assert (await seen_of(scene)).worst is Grade.PROBE
    scene.process.returns(call_id="hangs")
    await go_on(scene, SILENT_TOOL, MINUTE)
    assert [event.after for event in await here.events(AgentRecovered)] == ["silent_tool"]
    scene.process.calls("Bash", "cat", "hangs again")
    await go_on(scene, SILENT_TOOL, 12 * MINUTE)
    seen = await seen_of(scene)
    assert Counter(grade for _, grade in seen.done) == {Grade.NOTE: 2, Grade.PROBE: 2}


async def test_a_turn_that_is_broken_off_goes_on_with_what_was_seen(here: SmallWorld) -> None:
    """In the same process, the same conversation and the same attempt."""
    scene = await begin(here, SAME_CALL)
    await go_on(scene, SAME_CALL)
    first, nudge, facts = await here.prompts()
    assert [prompt.state for prompt in (first, nudge, facts)] == [PromptState.ANSWERED, PromptState.ANSWERED, PromptState.TAKEN]
    assert (nudge.aside, facts.aside) == (True, False)
    assert "the same call failed 8 times in a row: Bash make test" in nudge.text
    assert "Your turn was broken off" in facts.text
    assert "nothing was changed in its workspace in between" in facts.text
    assert scene.process.interrupted == 1
    assert [prompt.text for prompt in scene.process.prompts] == [first.text, nudge.text, facts.text]
    writes({"api.py": "1"})(scene.process, "")
    await scene.leader.run()
    completed = await here.task()
    assert (completed.state, completed.attempts, len(here.host.processes)) == (TaskState.COMPLETED, 1, 1)
    (attempt,) = await here.attempts()
    assert (attempt.interruptions, attempt.crashes) == (0, 0)


async def test_a_program_that_does_not_listen_is_started_anew_and_goes_on(here: SmallWorld) -> None:
    """Its conversation, its workspace and its attempt are the same; nothing counts as failed."""
    scene = await begin(here, SILENT_PROGRAM)
    scene.process.obeys = False
    await go_on(scene, SILENT_PROGRAM, 15 * MINUTE)
    first, second = here.host.processes
    assert (first.alive, second.resumed, second.conversation_id) == (False, True, first.conversation_id)
    seen = await seen_of(scene)
    assert [grade for _, grade in seen.done][:5] == [Grade.NOTE, Grade.PROBE, Grade.NUDGE, Grade.INTERRUPT, Grade.RESTART]
    assert "Your program was started anew" in second.prompts[0].text
    writes({"api.py": "1"})(second, "")
    await scene.leader.run()
    completed = await here.task()
    assert (completed.state, completed.attempts) == (TaskState.COMPLETED, 1)
    assert len(await here.attempts()) == 1


async def test_an_attempt_whose_agents_get_stuck_again_and_again_has_failed(here: SmallWorld) -> None:
    scene = await begin(here, SILENT_PROGRAM)
    for _ in range(8):
        for process in here.host.live():
            process.obeys = False
        await go_on(scene, SILENT_PROGRAM, 10 * MINUTE)
    first = (await here.attempts())[0]
    assert first.outcome is not None
    assert first.outcome.value == "agent_failed"
    of_first = [process for process in here.host.processes if process.conversation_id == first.conversation_id]
    assert len(of_first) == 3, "it was started, and twice anew"
    seen = await seen_of(scene)
    assert Grade.GIVE_UP in {grade for _, grade in seen.done}


async def test_a_new_leader_goes_on_from_there_and_answers_nothing_twice(here: SmallWorld) -> None:
    scene = await begin(here, SILENT_PROGRAM)
    await go_on(scene, SILENT_PROGRAM, 4 * MINUTE)
    before = [grade for _, grade in (await seen_of(scene)).done]
    assert before == [Grade.NOTE, Grade.PROBE]
    scene.process.input_open = False
    await scene.leader.die()
    scene.leader = await here.lead()
    await scene.leader.run()
    await go_on(scene, SILENT_PROGRAM, 2 * MINUTE)
    after = [grade for _, grade in (await seen_of(scene)).done]
    # It cannot be written to any more, so neither a nudge nor an interruption is of any use.
    assert after == [*before, Grade.RESTART]


async def test_a_machine_that_slept_has_no_stuck_agents(here: SmallWorld) -> None:
    scene = await begin(here, SILENT_PROGRAM)
    await go_on(scene, SILENT_PROGRAM, MINUTE)
    here.clock.jump(timedelta(hours=9))
    await scene.leader.run()
    await go_on(scene, SILENT_PROGRAM, MINUTE)
    assert (await seen_of(scene)).found == ()
    here.clock.jump(timedelta(hours=-9))
    await scene.leader.run()
    await go_on(scene, SILENT_PROGRAM, timedelta(seconds=20))
    assert (await seen_of(scene)).found == ()
    # What was seen of its silence before and after counts.
    await go_on(scene, SILENT_PROGRAM, MINUTE)
    assert (await seen_of(scene)).after(Condition.BLOCKED) is not None


async def test_agents_that_are_heard_are_not_measured(here: SmallWorld) -> None:
    """Fifty of them must cost next to nothing."""
    talking = Script(name="talks", begin=nothing, goes_on=lambda scene: scene.process.say("hm"), lasts=10 * MINUTE)
    scene = await begin(here, talking)
    await go_on(scene, talking)
    assert here.host.measures == 0


async def test_a_beat_writes_no_event(here: SmallWorld) -> None:
    scene = await begin(here, SILENT_BUILD)
    before = len(await here.log())
    await go_on(scene, SILENT_BUILD)
    assert len(await here.log()) == before
    (standing,) = await here.store.read(lambda view: view.standings.all())
    assert here.clock.now() - standing.beat_at <= BEAT
    assert standing.doing == "Bash make all"


async def test_how_an_agent_stood_is_forgotten_with_its_attempt(here: SmallWorld) -> None:
    scene = await begin(here, SILENT_BUILD)
    await go_on(scene, SILENT_BUILD, MINUTE)
    writes({"api.py": "1"})(scene.process, "")
    await go_on(scene, SILENT_BUILD, MINUTE)
    assert (await here.task()).state is TaskState.COMPLETED
    assert list(await here.store.read(lambda view: view.standings.all())) == []
    assert await scene.leader.run() is None


async def test_a_nudge_that_comes_when_the_turn_is_over_is_read_before_the_work_is_looked_at(here: SmallWorld) -> None:
    scene = await begin(here, STRAYING)
    # It reads what is said to it only when it has answered.
    scene.process.deaf = True
    await go_on(scene, STRAYING)
    assert len(await here.events(AgentNudged)) == 1
    scene.process.deaf = False
    unread, scene.process.unread = scene.process.unread, []
    scene.process.done("done")
    await scene.leader.run()
    assert (await here.task()).state is TaskState.RUNNING
    for prompt in unread:
        scene.process.take(prompt)
    writes({"elsewhere.py": None, "api.py": "1"})(scene.process, "")
    await scene.leader.run()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_who_interferes_with_nothing_is_told_all_the_same(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(configs=(replace(CODER, patience=Patience(hands_off=True)),)))
    leader = await here.lead()
    await leader.run()
    for _ in range(40):
        here.clock.move(BEAT)
        await leader.run()
    assert run_id
    assert [event.condition for event in await here.events(AgentNoted)] == [Condition.BLOCKED.value]
    assert await here.events(AgentProbed) == []
    assert await here.events(AgentRestarted) == []


async def test_an_interruption_that_comes_too_late_is_nothing(here: SmallWorld) -> None:
    """The turn was over when it was told to break off: what it was to be told then is not said later."""
    scene = await begin(here, CUT_STREAM)
    scene.process.obeys = False
    await go_on(scene, CUT_STREAM, 5 * MINUTE)
    assert len(await here.events(AgentInterrupted)) == 1
    writes({"api.py": "1"})(scene.process, "")
    await scene.leader.run()
    assert (await here.task()).state is TaskState.COMPLETED
    assert [prompt.state for prompt in await here.prompts()] == [PromptState.ANSWERED, PromptState.DROPPED]


async def test_time_in_which_an_agent_stood_still_for_a_person_is_no_silence(here: SmallWorld) -> None:
    scene = await begin(here, SILENT_TOOL)
    await go_on(scene, SILENT_TOOL, MINUTE)
    agent = (await here.store.read(lambda view: view.agents.live()))[0]
    await here.ask(Freeze(run_id=agent.run_id, agent_id=agent.agent_id))
    await go_on(scene, SILENT_TOOL, 40 * MINUTE)
    await here.ask(Thaw(run_id=agent.run_id, agent_id=agent.agent_id))
    await go_on(scene, SILENT_TOOL, 8 * MINUTE)
    seen = await seen_of(scene)
    assert {condition for _, condition in seen.found} <= {Condition.FROZEN}
    assert seen.done == (), "who stands still for a person is not stuck"
    # It has its patience from then on, and no more.
    await go_on(scene, SILENT_TOOL, 3 * MINUTE)
    assert Condition.SILENT_TOOL in {condition for _, condition in (await seen_of(scene)).found}


@pytest.mark.parametrize("by", [timedelta(hours=2), timedelta(hours=-2)], ids=["forward", "back"])
async def test_what_is_said_just_after_the_clock_was_set_is_of_now(here: SmallWorld, by: timedelta) -> None:
    scene = await begin(here, SILENT_PROGRAM)
    await go_on(scene, SILENT_PROGRAM, MINUTE)
    here.clock.jump(by)
    scene.process.say("still here")
    # It is heard before anybody looks.
    await scene.leader.settle()
    await go_on(scene, SILENT_PROGRAM, 2 * MINUTE)
    assert (await seen_of(scene)).found == ()
    await go_on(scene, SILENT_PROGRAM, timedelta(seconds=100))
    assert {condition for _, condition in (await seen_of(scene)).found} == {Condition.BLOCKED}


async def test_what_is_told_of_an_agent_ends_with_its_work(here: SmallWorld) -> None:
    scene = await begin(here, SILENT_TOOL)
    await go_on(scene, SILENT_TOOL, MINUTE)
    (found,) = await here.store.read(agents_health)
    assert found.words(here.clock.now()) == "works: Bash cat"
    # Its work is checked.
    here.points.hold("run")
    scene.process.returns(call_id="hangs")
    writes({"api.py": "1"})(scene.process, "")
    await go_on(scene, SILENT_TOOL, MINUTE)
    (found,) = await here.store.read(agents_health)
    assert found.words(here.clock.now()) == "works: its work is checked"
    here.points.release("run")


async def test_who_was_stopped_does_nothing(here: SmallWorld) -> None:
    scene = await begin(here, SILENT_TOOL)
    await go_on(scene, SILENT_TOOL, MINUTE)
    agent = (await here.store.read(lambda view: view.agents.live()))[0]
    await here.ask(StopAgent(run_id=agent.run_id, agent_id=agent.agent_id, at_once=True))
    await go_on(scene, SILENT_TOOL, MINUTE)
    assert (await here.task()).waits_for is Wait.PAUSED
    assert await here.store.read(agents_health) == ()
