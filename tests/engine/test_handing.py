"""A person takes a conversation over, and hands it back."""

from dataclasses import replace
from datetime import timedelta

import pytest

from kapelle.core.agent import Agent
from kapelle.core.attempt import Outcome
from kapelle.core.errors import NotPossibleNow
from kapelle.core.ids import PromptId, RequestId
from kapelle.core.isolation import SandboxCapabilities
from kapelle.core.requests import Cancel, Request
from kapelle.core.steering import HandBack, Send, TakeOver
from kapelle.core.steering_events import ConversationHandedBack, ConversationTakenOver
from kapelle.core.task import TaskState, Wait
from kapelle.testing.factories import run_spec, task
from kapelle.testing.mischief import does_well
from kapelle.testing.worlds import Leader, SmallWorld

GONE = "A person had taken this conversation over"


async def agent(here: SmallWorld) -> Agent:
    return (await here.store.read(lambda view: view.agents.live()))[0]


async def at_work(here: SmallWorld, **changes: object) -> tuple[Leader, Agent]:
    await here.submit(run_spec(task(**changes)))
    leader = await here.lead()
    await leader.run()
    return leader, await agent(here)


async def taken(here: SmallWorld, leader: Leader, found: Agent) -> Agent:
    await here.ask(TakeOver(run_id=found.run_id, agent_id=found.agent_id))
    await leader.run()
    return await agent(here)


async def test_a_person_goes_on_in_the_same_conversation_and_workspace_and_the_engine_after(here: SmallWorld) -> None:
    leader, found = await at_work(here, max_attempts=1)
    first = here.process()
    first.write("api.py", "half")
    now = await taken(here, leader, found)
    second = here.process()
    assert (first.alive, second.resumed, now.by_hand) == (False, True, True)
    assert (second.conversation_id, second.launch.cwd) == (first.conversation_id, first.launch.cwd)
    assert here.terminal.hosting == [now.folder]
    waiting = await here.task()
    assert (waiting.state, waiting.waits_for) == (TaskState.RUNNING, Wait.PERSON)
    # Nothing prompts it, and what is answered to the person ends no task.
    assert second.prompts == []
    second.done("as you wish")
    await leader.run()
    assert (await here.task()).state is TaskState.RUNNING

    second.exit(0)
    await leader.run()
    third = here.process()
    assert (third.resumed, [prompt.text[: len(GONE)] for prompt in third.prompts]) == (True, [GONE])
    third.write("api.py", "whole")
    third.done()
    await leader.run_out()
    done = await here.task()
    assert (done.state, done.attempts, done.waits_for) == (TaskState.COMPLETED, 1, None)
    assert [attempt.outcome for attempt in await here.attempts()] == [Outcome.SUCCEEDED]
    assert [event.principal for event in await here.events(ConversationTakenOver)] == ["you"]
    assert [event.principal for event in await here.events(ConversationHandedBack)] == ["you"]


async def test_a_person_has_a_day_whatever_the_time_limit_of_the_task(here: SmallWorld) -> None:
    """What its program asks is over before its time limit: a task's own would end it before it was asked."""
    leader, found = await at_work(here, timeout=timedelta(minutes=5))
    now = await taken(here, leader, found)
    assert now.deadline_at == now.created_at + timedelta(days=1)


async def test_it_is_handed_back_when_that_is_asked(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await taken(here, leader, found)
    await here.ask(HandBack(run_id=found.run_id, task_id=found.task_id))
    await leader.run()
    assert here.process().prompts[0].text.startswith(GONE)
    again = await here.ask(HandBack(run_id=found.run_id, task_id=found.task_id))
    await leader.run()
    assert "nobody has taken it over" in str(await here.refusal(again))


async def test_a_takeover_outlives_the_leader_and_so_does_its_end(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    now = await taken(here, leader, found)
    process = here.process()
    await leader.die()
    # Its input ended, and a person is there all the same.
    process.ended = None
    successor = await here.lead()
    await successor.run()
    assert (await agent(here)).agent_id == now.agent_id
    await successor.die()
    process.ended = None
    process.exit(0)
    last = await here.lead()
    await last.run()
    assert here.process().prompts[0].text.startswith(GONE)
    does_well(here.process())
    await last.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_a_takeover_that_was_only_asked_for_is_done_by_the_next_leader(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(TakeOver(run_id=found.run_id, agent_id=found.agent_id))
    await leader.step("submit")
    await leader.die()
    successor = await here.lead()
    await successor.run()
    assert (await agent(here)).by_hand
    assert here.process().prompts == []


async def test_what_is_handed_back_before_its_screen_was_there_goes_on(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(TakeOver(run_id=found.run_id, agent_id=found.agent_id))
    here.points.hold("start")
    await leader.run()
    now = await agent(here)
    assert (now.by_hand, now.process) == (True, None)
    await leader.die()
    here.points.release("start")
    await here.ask(HandBack(run_id=found.run_id, task_id=found.task_id))
    successor = await here.lead()
    await successor.run()
    assert not (await agent(here)).by_hand
    assert here.process().prompts[0].text.startswith(GONE)
    assert len(await here.events(ConversationHandedBack)) == 1


async def test_what_has_not_begun_cannot_be_taken_over(here: SmallWorld) -> None:
    await here.submit(run_spec(task()))
    here.points.hold("start")
    leader = await here.lead()
    await leader.run()
    found = await agent(here)
    asked = await here.ask(TakeOver(run_id=found.run_id, agent_id=found.agent_id))
    await leader.step("submit")
    assert "has not begun" in str(await here.refusal(asked))
    here.points.release("start")


async def test_nothing_is_said_to_who_is_on_the_way_out_for_a_person(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await here.ask(TakeOver(run_id=found.run_id, agent_id=found.agent_id))
    asked = await here.ask(Send(run_id=found.run_id, agent_id=found.agent_id, prompt_id=PromptId("p-1"), text="hello"))
    await leader.step("submit")
    assert "taken agent" in str(await here.refusal(asked))


async def test_what_is_taken_over_can_be_cancelled(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    await taken(here, leader, found)
    await here.ask(Cancel(run_id=found.run_id))
    await leader.run_out()
    assert here.host.live() == []
    assert (await here.task()).state is TaskState.CANCELLED


async def test_a_person_who_is_there_is_not_spoken_to_by_others(here: SmallWorld) -> None:
    leader, found = await at_work(here)
    now = await taken(here, leader, found)
    asked = await here.ask(Send(run_id=now.run_id, agent_id=now.agent_id, prompt_id="p-1", text="hello"))
    await leader.run()
    assert "taken agent" in str(await here.refusal(asked))


@pytest.mark.parametrize("how", ["no tmux", "sandbox", "program", "agent", "gating"])
async def test_what_cannot_be_taken_over_goes_on(here: SmallWorld, how: str) -> None:
    if how == "no tmux":
        here.terminal.absent = "tmux is not installed"
    if how == "sandbox":
        here.sandbox.capabilities = SandboxCapabilities()
    leader, found = await at_work(here, **({"agent": "once"} if how == "program" else {}))
    if how == "gating":
        here.points.hold("run")
        does_well(here.process())
        await leader.run()
    request = Request(
        request_id=RequestId("q-1"),
        body=TakeOver(run_id=found.run_id, agent_id=found.agent_id),
        principal="agent:api" if how == "agent" else "you",
        asked_at=here.clock.now(),
    )
    await here.store.ask([request])
    await leader.step("submit")
    expected = {
        "no tmux": "tmux is not installed",
        "sandbox": "nobody can take over",
        "program": "has no screen",
        "agent": "only a person",
        "gating": "its work is checked just now",
    }
    assert expected[how] in str(await here.refusal(request.request_id))
    assert (await here.task()).waits_for is not Wait.PERSON
    here.points.release("run")


async def test_what_cannot_be_opened_is_handed_back(here: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, found = await at_work(here)

    def fails(*_: object) -> None:
        raise NotPossibleNow("no screen today")

    monkeypatch.setattr(here.terminal, "hosted", fails)
    await here.ask(TakeOver(run_id=found.run_id, agent_id=found.agent_id))
    await leader.run()
    attempt = (await here.attempts())[0]
    assert (attempt.held_by, attempt.ended_at) == ("", None)
    assert here.process().prompts[0].text.startswith(GONE)
    assert replace(attempt) == attempt
