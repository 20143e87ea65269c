"""What a person says to an agent in its conversation."""

from datetime import timedelta

import pytest

from kapelle.core.agent import Agent
from kapelle.core.attempt import PromptState
from kapelle.core.conversation import Trouble
from kapelle.core.events import PromptSent
from kapelle.core.ids import PromptId, RequestId
from kapelle.core.requests import Cancel, Request, Resume
from kapelle.core.steering import HandBack, Send, StopAgent, TakeOver
from kapelle.core.steering_events import PromptCarriedOver, PromptQueued, PromptUnheard
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.mischief import does_well
from kapelle.testing.worlds import Leader, SmallWorld


async def at_work(here: SmallWorld, **changes: object) -> tuple[Leader, Agent]:
    await here.submit(run_spec(task(**changes)))
    leader = await here.lead()
    await leader.run()
    return leader, (await here.store.read(lambda view: view.agents.live()))[0]


def words(found: Agent, text: str, name: str = "p-1") -> Send:
    return Send(run_id=found.run_id, agent_id=found.agent_id, prompt_id=PromptId(name), text=text)


async def test_it_is_heard_when_the_turn_is_over_and_before_the_work_is_checked(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(words(found, "use tabs"))
    await leader.run()
    assert len(here.process().prompts) == 1
    does_well(here.process())
    await leader.run()
    assert [prompt.text for prompt in here.process().prompts] == ["do api", "use tabs"]
    assert here.host.ran == []
    does_well(here.process())
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert [event.sender for event in await here.events(PromptSent)] == ["", "you"]
    assert [event.length for event in await here.events(PromptQueued)] == [8]


async def test_what_an_attempt_did_not_hear_is_said_in_the_next(here: SmallWorld) -> None:
    leader, found = await at_work(here, max_attempts=2)
    await here.ask(words(found, "use tabs"))
    await leader.run()
    here.process().time_out()
    here.host.otherwise = lambda process, _: does_well(process)
    await leader.run_out()
    assert [attempt.number for attempt in await here.attempts()] == [1, 2]
    assert [event.sender for event in await here.events(PromptSent)][-2:] == ["", "you"]
    assert [prompt.text for prompt in here.process().prompts] == ["do api", "use tabs"]
    assert len(await here.events(PromptCarriedOver)) == 1


async def test_what_nobody_heard_before_the_end_is_told(here: SmallWorld) -> None:
    leader, found = await at_work(here, max_attempts=1)
    await here.ask(words(found, "use tabs"))
    await leader.run()
    await here.ask(Cancel(run_id=found.run_id, task_id=found.task_id))
    await leader.run_out()
    assert (await here.task()).state is TaskState.CANCELLED
    (unheard,) = await here.events(PromptUnheard)
    assert (unheard.prompt_id, unheard.principal, unheard.length) == ("p-1", "you", 8)
    assert [prompt.state for prompt in await here.prompts()][-1] is PromptState.DROPPED


async def test_asked_twice_it_is_said_once(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    for _ in range(2):
        await here.ask(words(found, "use tabs"))
    await leader.run()
    does_well(here.process())
    await leader.run()
    does_well(here.process())
    await leader.run_out()
    assert [prompt.text for prompt in await here.prompts()] == ["do api", "use tabs"]


async def test_it_is_said_once_though_the_leader_dies_before_and_after(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(words(found, "use tabs"))
    await leader.step("submit")
    await leader.die()
    does_well(here.process())
    successor = await here.lead()
    await successor.run()
    assert here.process().resumed
    assert [prompt.text for prompt in here.process().prompts] == ["use tabs"]
    does_well(here.process())
    await successor.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_to_whom_nobody_can_speak_any_more_nothing_is_sent(here: SmallWorld) -> None:
    """An agent that an earlier leader started hears nobody: it is not told first, and then the next one once more."""
    leader, found = await at_work(here)
    process = here.process()
    await leader.die()
    await here.ask(words(found, "nobody leads"))
    successor = await here.lead()
    await successor.run()
    # Its input has ended and its turn, and it has not yet.
    process.emit(done="", result=None, cost=None, denied=[])
    await successor.run()
    assert [prompt.text for prompt in here.process().prompts] == ["nobody leads"]
    assert [event.text for event in await here.events(PromptSent)] == ["do api", "nobody leads"]


async def test_what_is_said_while_the_work_is_checked_comes_before_the_merge(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    here.points.hold("run")
    does_well(here.process())
    await leader.run()
    assert (await here.task()).state is TaskState.VALIDATING
    await here.ask(words(found, "one more thing"))
    here.points.release("run")
    await leader.run()
    assert (await here.task()).state is TaskState.RUNNING
    assert here.process().prompts[-1].text == "one more thing"
    does_well(here.process())
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_it_is_not_lost_when_the_conversation_is(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(words(found, "use tabs"))
    await leader.run()
    here.process().trouble(Trouble.CONVERSATION_LOST)
    await leader.run()
    assert here.process().prompts[-1].text == "do api"
    does_well(here.process())
    await leader.run()
    assert here.process().prompts[-1].text == "use tabs"


@pytest.mark.parametrize("how", ["ended", "command", "stopped", "agent"])
async def test_who_cannot_hear_is_not_spoken_to(here: SmallWorld, how: str) -> None:
    leader, found = await at_work(here, **({"agent": "once"} if how == "command" else {}))
    if how == "ended":
        does_well(here.process())
        await leader.run_out()
    if how == "stopped":
        await here.ask(StopAgent(run_id=found.run_id, agent_id=found.agent_id))
    request = Request(
        request_id=RequestId("q-1"),
        body=words(found, "hello"),
        principal="agent:api" if how == "agent" else "you",
        asked_at=here.clock.now(),
    )
    await here.store.ask([request])
    await leader.run()
    expected = {"ended": "has ended", "command": "takes no messages", "stopped": "is being stopped", "agent": "only a person"}
    assert expected[how] in str(await here.refusal(request.request_id))
    assert all(prompt.state is not PromptState.PENDING for prompt in await here.prompts())


CUT, TURN, ANEW = "You were cut off", "Your turn was broken off", "Your program was started anew"


async def heard(here: SmallWorld, leader: Leader) -> list[str]:
    """Let the agent do well whatever it is told until its task has ended; return what its newest process was told."""
    while (await here.task()).state is TaskState.RUNNING:
        does_well(here.process())
        await leader.run()
    return [prompt.text for prompt in here.process().prompts]


async def test_a_turn_that_was_cut_off_is_gone_on_with_before_a_person_is_heard(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(words(found, "use tabs"))
    await here.ask(StopAgent(run_id=found.run_id, agent_id=found.agent_id, at_once=True))
    await leader.run()
    await here.ask(Resume(run_id=found.run_id, task_id=found.task_id))
    await leader.run()
    first, second = await heard(here, leader)
    assert (first[: len(CUT)], second) == (CUT, "use tabs")


async def test_a_turn_that_a_person_had_is_gone_on_with_before_others_are_heard(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(words(found, "use tabs"))
    await here.ask(TakeOver(run_id=found.run_id, agent_id=found.agent_id))
    await leader.run()
    await here.ask(HandBack(run_id=found.run_id, task_id=found.task_id))
    await leader.run()
    first, second = await heard(here, leader)
    assert ("A person had taken" in first, second) == (True, "use tabs")


@pytest.mark.parametrize(("obeys", "told"), [(True, TURN), (False, ANEW)])
async def test_what_a_person_says_to_an_agent_that_is_stuck_is_not_lost(here: SmallWorld, obeys: bool, told: str) -> None:
    here.set(heartbeat=timedelta(seconds=30))
    leader, found = await at_work(here, timeout=timedelta(hours=2))
    here.process().obeys = obeys
    await here.ask(words(found, "use tabs"))
    while told not in (await here.prompts())[-1].text:
        here.clock.move(timedelta(seconds=30))
        await leader.run()
    await leader.run()
    told_of = await heard(here, leader)
    assert [text[: len(told)] for text in told_of[-2:]] == [told, "use tabs"]


async def test_it_is_not_lost_when_the_conversation_becomes_too_long(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(words(found, "use tabs"))
    await leader.run()
    here.process().tool()
    here.process().trouble(Trouble.CONTEXT_OVERFLOW, "prompt is too long")
    await leader.run()
    first, second = await heard(here, leader)
    assert "do api" in first
    assert "use tabs" not in first
    assert second == "use tabs"
