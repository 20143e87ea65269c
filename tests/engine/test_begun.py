"""Conversations that a program had begun, and had not said so yet, when it was ended."""

from kapelle.core.agent import AgentState
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import ScriptedProcess, writes
from kapelle.testing.worlds import SmallWorld


def in_its_first_call(process: ScriptedProcess) -> None:
    process.says_late = True


async def test_a_program_that_was_ended_in_its_first_model_call_costs_no_more_than_that(here: SmallWorld) -> None:
    """It says that it has read its prompt with its first answer; what it was told is in its conversation by then."""
    here.host.starts("a", in_its_first_call)
    await here.submit(run_spec(task("a", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    (process,) = here.host.of_task("a")
    assert process.prompts
    process.exit(None)
    here.host.plays("a", writes({"a.py": "1"}))
    await leader.run_out()
    assert (await here.task("a")).state is TaskState.COMPLETED
    first, second = here.host.of_task("a")
    assert first.conversation_id != second.conversation_id


async def test_who_goes_on_in_a_conversation_recovers_until_it_is_there(here: SmallWorld) -> None:
    await here.submit(run_spec(task("a", max_attempts=1)))
    leader = await here.lead()
    await leader.run()
    (process,) = here.host.of_task("a")
    process.say("I look.")
    await leader.run()
    here.points.hold("start")
    process.exit(None)
    await leader.round()
    await leader.round()
    (agent,) = await here.store.read(lambda view: view.agents.live())
    assert agent.state is AgentState.RECOVERING
    here.host.plays("a", writes({"a.py": "1"}))
    here.points.release("start")
    await leader.round()
    (agent,) = await here.store.read(lambda view: view.agents.live())
    assert agent.state is AgentState.ACTIVE
    await leader.run_out()
    assert (await here.task("a")).state is TaskState.COMPLETED
