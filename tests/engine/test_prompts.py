"""Prompts: committed before they are sent, known by one id for ever, and never sent twice under two."""

import pytest

from kapelle.core.attempt import PromptState
from kapelle.core.events import (
    AgentAnswered,
    AgentBabbled,
    AgentSaid,
    AgentToolFailed,
    AgentUsedTool,
    AgentWasRefused,
    ModelCallRetried,
    PromptSent,
)
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import ScriptedProcess, answers, writes
from kapelle.testing.worlds import SmallWorld


def deaf(process: ScriptedProcess) -> None:
    process.deaf = True


async def test_a_prompt_is_committed_before_it_is_sent(here: SmallWorld) -> None:
    await here.submit(run_spec())
    here.points.hold("write")
    leader = await here.lead()
    await leader.run()
    assert here.process().prompts == []
    (prompt,) = await here.prompts()
    assert (prompt.state, prompt.text, prompt.round) == (PromptState.SENT, "do api", 0)
    assert [event.prompt_id for event in await here.events(PromptSent)] == [prompt.prompt_id]


async def test_a_prompt_arrives_under_the_id_it_was_committed_with(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    (prompt,) = await here.prompts()
    (read,) = here.process().prompts
    assert (read.prompt_id, read.text) == (prompt.prompt_id, "do api")


async def test_a_prompt_is_taken_and_then_answered(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert [prompt.state for prompt in await here.prompts()] == [PromptState.TAKEN]
    answers()(here.process(), "")
    await leader.run()
    assert [prompt.state for prompt in await here.prompts()] == [PromptState.ANSWERED]


async def test_a_prompt_stays_sent_until_the_program_says_that_it_read_it(here: SmallWorld) -> None:
    here.host.starts("api", deaf)
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert [prompt.state for prompt in await here.prompts()] == [PromptState.SENT]
    await leader.run()
    assert len(here.process().unread) == 1


async def test_a_prompt_that_was_never_read_goes_to_the_next_process_under_the_same_id(here: SmallWorld) -> None:
    here.host.starts("api", deaf)
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.process().exit(1)
    await leader.run_out()
    first, second = here.host.of_task("api")
    assert [prompt.prompt_id for prompt in second.prompts] == [prompt.prompt_id for prompt in first.unread]
    assert len(await here.prompts()) == 1
    assert not second.resumed


async def test_a_prompt_that_was_read_is_not_sent_again(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.process().exit(1)
    await leader.run_out()
    first, second = here.host.of_task("api")
    assert second.resumed
    assert second.conversation_id == first.conversation_id
    assert first.prompts[0].text == "do api"
    assert second.prompts[0].text.startswith("You were cut off")
    assert second.prompts[0].prompt_id != first.prompts[0].prompt_id


async def test_a_prompt_that_cannot_be_written_goes_to_the_next_process_under_the_same_id(here: SmallWorld) -> None:
    here.host.starts("api", lambda process: process.exit(1))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run_out()
    (prompt,) = await here.prompts()
    assert [read.prompt_id for read in here.process().prompts] == [prompt.prompt_id]


async def test_a_further_round_goes_to_the_same_process(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "broken"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    (process,) = here.host.processes
    assert [prompt.prompt_id for prompt in process.prompts] == [prompt.prompt_id for prompt in await here.prompts()]
    assert [prompt.round for prompt in await here.prompts()] == [0, 1]


async def test_an_agent_that_ended_in_order_between_two_rounds_is_resumed_with_the_next_prompt(here: SmallWorld) -> None:
    here.points.hold("run")
    here.host.plays("api", writes({"api.py": "broken"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    here.process().exit(0)
    await leader.run()
    here.points.release("run")
    await leader.run_out()
    first, second = here.host.of_task("api")
    assert second.resumed
    assert second.conversation_id == first.conversation_id
    assert [prompt.prompt_id for prompt in second.prompts] == [(await here.prompts())[1].prompt_id]
    assert (await here.attempts())[0].crashes == 0


async def test_a_program_without_a_conversation_has_its_prompt_by_argument(here: SmallWorld) -> None:
    await here.submit(run_spec(task("api", agent="once")))
    leader = await here.lead()
    await leader.run()
    (prompt,) = await here.prompts()
    assert here.process().launch.argv[3:] == (prompt.prompt_id, "do api")
    assert not here.process().launch.stdin
    assert prompt.state is PromptState.TAKEN
    assert [event.prompt_id for event in await here.events(PromptSent)] == [prompt.prompt_id]
    here.process().write("api.py", "1")
    here.process().say("did it")
    here.process().exit(0)
    await leader.run()
    completed = await here.task()
    assert (completed.state, completed.summary) == (TaskState.COMPLETED, "did it")


@pytest.mark.parametrize("piece", [1, 7, 64])
async def test_it_does_not_matter_how_a_spool_is_cut(here: SmallWorld, piece: int) -> None:
    here.host.piece = piece
    here.host.plays("api", writes({"api.py": "1"}, "d\u00efd it"))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run(2000)
    completed = await here.task()
    assert (completed.state, completed.summary) == (TaskState.COMPLETED, "d\u00efd it")


async def test_what_an_agent_says_and_does_is_told(here: SmallWorld) -> None:
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    process = here.process()
    process.say("let me see")
    process.write("api.py", "1")
    process.emit(tool_failed="no such file")
    process.emit(retried=2)
    process.babble("what is this?\n")
    process.done("did it", denied=["Bash"])
    await leader.run()
    assert [event.text for event in await here.events(AgentSaid, "api")] == ["let me see"]
    assert [(event.tool, event.about) for event in await here.events(AgentUsedTool)] == [("Write", "api.py")]
    assert [event.about for event in await here.events(AgentToolFailed)] == ["no such file"]
    assert [(event.attempt, event.status) for event in await here.events(ModelCallRetried)] == [(2, 529)]
    assert [(event.what, event.raw) for event in await here.events(AgentBabbled)] == [("no_json", "what is this?")]
    assert [event.tools for event in await here.events(AgentWasRefused)] == [("Bash",)]
    assert [(event.text, event.trouble) for event in await here.events(AgentAnswered)] == [("did it", None)]
    assert (await here.attempts())[0].tool_calls == 1


async def test_an_agent_that_has_nothing_left_to_do_is_ended(here: SmallWorld) -> None:
    here.host.plays("api", writes({"api.py": "1"}))
    await here.submit(run_spec())
    leader = await here.lead()
    await leader.run()
    assert here.host.live() == []
    assert here.process().ended is not None
    assert here.process().ended.exit_code == 0
