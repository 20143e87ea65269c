"""Questions: asked, answered, expired, withdrawn; under leaders that die, and by those who may not answer."""

from asyncio import Future
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kapelle.core.agent import AgentConfig
from kapelle.core.events import RequestRefused, TaskWaited
from kapelle.core.question import AnswerKind, Question, QuestionState
from kapelle.core.requests import Answer, Approve, Cancel, Request
from kapelle.core.rule_events import (
    CommandAllowed,
    CommandDenied,
    QuestionAnswered,
    QuestionAsked,
    QuestionExpired,
    QuestionWithdrawn,
    WardenRefused,
)
from kapelle.core.rules import ABOUT, Call, Fallback, Rules, Ruling, Verdict
from kapelle.core.task import TaskState, Wait
from kapelle.engine.repeats import FEW, MANY
from kapelle.engine.warden import MOST_OPEN
from kapelle.testing.factories import run_spec, task
from kapelle.testing.worlds import Leader, SmallWorld

PUBLISH = "Bash(npm publish *)"


async def at_work(here: SmallWorld, *names: str, **rules: Any) -> Leader:
    """Let agents be in the middle of their turn, with rules of their own."""
    config = AgentConfig(name="coder", program="line", rules=Rules(**{"ask": (PUBLISH,), **rules}))
    await here.submit(run_spec(*[task(name) for name in names or ("api",)], configs=(config,)))
    leader = await here.lead()
    await leader.run()
    return leader


async def ask(here: SmallWorld, command: str, call_id: str = "c-1", *, name: str = "api", **more: Any) -> "Future[Ruling]":
    """Ask as the agent of the task *name* does, and let the leader hear it."""
    task_id = await here.task_id(name)
    agents = await here.store.read(lambda view: view.agents.live())
    agent = next(agent for agent in agents if agent.task_id == task_id)
    call = Call(call_id=call_id, tool="Bash", command=command, **more)
    asked = await here.warden.ask(agent.agent_id, call)
    await here.leaders[-1].run()
    return asked


async def question(here: SmallWorld) -> Question:
    (found,) = await here.store.read(lambda view: view.questions.open())
    return found


async def answer(
    here: SmallWorld, asked: Question, kind: AnswerKind, *, by: str = "person:you", reason: str = ""
) -> str | None:
    body = Answer(run_id=asked.run_id, question_id=asked.question_id, answer=kind, reason=reason)
    request = Request(request_id=here.ports.new_id("q"), body=body, principal=by, asked_at=here.clock.now())  # pyright: ignore[reportArgumentType]
    await here.store.ask([request])
    await here.leaders[-1].run()
    return await here.refusal(request.request_id)


async def test_what_no_rule_speaks_of_is_passed_and_costs_nothing(here: SmallWorld) -> None:
    await at_work(here)
    before = await here.store.read(lambda view: view.last_seq())
    assert (await ask(here, "ls")).result().verdict is Verdict.PASS
    assert await here.store.read(lambda view: view.last_seq()) == before


async def test_what_is_denied_is_an_event_and_the_agent_is_told_why(here: SmallWorld) -> None:
    await at_work(here)
    told = (await ask(here, "sudo ls")).result()
    assert told.verdict is Verdict.DENY
    assert "Kapelle's rule privilege: `sudo`" in told.reason
    (event,) = await here.events(CommandDenied, "api")
    assert (event.tool, event.what, event.rule) == ("Bash", "sudo ls", "privilege")
    assert (await here.task()).waits_for is None


async def test_what_is_asked_waits_and_the_task_says_so(here: SmallWorld) -> None:
    await at_work(here)
    asked = await ask(here, "npm publish --tag next")
    assert not asked.done()
    waiting, found = await here.task(), await question(here)
    assert (waiting.state, waiting.waits_for) == (TaskState.RUNNING, Wait.APPROVAL)
    assert waiting.detail == f"its agent asks: Bash: npm publish --tag next ({found.question_id})"
    (event,) = await here.events(QuestionAsked, "api")
    assert (event.rule, event.default, event.deadline_at) == (PUBLISH, "deny", here.clock.now() + timedelta(minutes=10))


@pytest.mark.parametrize(("kind", "verdict"), [("allow", "allow"), ("always", "allow"), ("deny", "deny")])
async def test_a_person_answers(here: SmallWorld, kind: str, verdict: str) -> None:
    await at_work(here)
    asked = await ask(here, "npm publish")
    assert await answer(here, await question(here), AnswerKind(kind), reason="since I say so") is None
    told = asked.result()
    assert told.verdict == verdict
    assert "since I say so" in told.reason
    (event,) = await here.events(QuestionAnswered, "api")
    assert (event.answer, event.principal, event.reason) == (kind, "person:you", "since I say so")
    assert (await here.task()).waits_for is None


async def test_nobody_answers_in_time(here: SmallWorld) -> None:
    leader = await at_work(here)
    asked = await ask(here, "npm publish")
    assert await leader.run() is not None
    here.clock.move(timedelta(minutes=10))
    await leader.run()
    assert asked.result().verdict is Verdict.DENY
    assert "nobody answered in time" in asked.result().reason
    assert [event.default for event in await here.events(QuestionExpired, "api")] == ["deny"]
    assert (await here.task()).waits_for is None


async def test_the_default_may_be_to_allow(here: SmallWorld) -> None:
    leader = await at_work(here, default=Fallback.ALLOW)
    asked = await ask(here, "npm publish")
    here.clock.move(timedelta(minutes=10))
    await leader.run()
    assert asked.result().verdict is Verdict.ALLOW


async def test_without_a_deadline_nobody_is_asked(here: SmallWorld) -> None:
    await at_work(here, deadline=timedelta(0))
    ruling = (await ask(here, "npm publish")).result()
    assert ruling.verdict is Verdict.DENY
    assert "nobody is asked here (deadline: 0s)" in ruling.reason
    (denied,) = await here.events(CommandDenied)
    assert (denied.rule, "nobody is asked here" in denied.reason) == (PUBLISH, True)
    assert await here.events(QuestionAsked) == await here.events(QuestionExpired) == []


async def test_without_a_deadline_the_default_may_be_to_let_it_through(here: SmallWorld) -> None:
    await at_work(here, deadline=timedelta(0), default=Fallback.ALLOW)
    assert (await ask(here, "npm publish")).result().verdict is Verdict.ALLOW
    (allowed,) = await here.events(CommandAllowed)
    assert "nobody is asked here" in allowed.reason
    assert await here.events(QuestionAsked) == []


async def test_a_question_is_over_before_the_time_limit_of_its_agent(here: SmallWorld) -> None:
    await at_work(here, deadline=timedelta(hours=5))
    await ask(here, "npm publish")
    (agent,) = await here.store.read(lambda view: view.agents.live())
    assert (await question(here)).deadline_at == agent.deadline_at - timedelta(minutes=1)


async def test_a_late_answer_is_refused(here: SmallWorld) -> None:
    leader = await at_work(here)
    await ask(here, "npm publish")
    late = await question(here)
    here.clock.move(timedelta(minutes=10))
    await leader.run()
    refusal = await answer(here, late, AnswerKind.ALLOW)
    assert refusal == f"the question {late.question_id} is not open any more: expired"


async def test_the_second_answer_is_refused(here: SmallWorld) -> None:
    await at_work(here)
    await ask(here, "npm publish")
    found = await question(here)
    assert await answer(here, found, AnswerKind.DENY) is None
    refusal = await answer(here, found, AnswerKind.ALLOW)
    assert refusal == f"the question {found.question_id} is not open any more: person:you said deny"


async def test_an_agent_may_not_answer(here: SmallWorld) -> None:
    await at_work(here)
    asked = await ask(here, "npm publish")
    refusal = await answer(here, await question(here), AnswerKind.ALLOW, by="agent:api")
    assert refusal is not None
    assert "only a person can answer" in refusal
    assert not asked.done()
    assert [event.reason for event in await here.events(RequestRefused)] == [refusal]


async def test_an_agent_may_not_approve_either(here: SmallWorld) -> None:
    await here.submit(run_spec(task(approval=True)))
    leader = await here.lead()
    await leader.run()
    waiting = await here.task()
    body = Approve(run_id=waiting.run_id, task_id=waiting.task_id)
    request = Request(request_id=here.ports.new_id("q"), body=body, principal="agent:other", asked_at=here.clock.now())  # pyright: ignore[reportArgumentType]
    await here.store.ask([request])
    await leader.run()
    assert "only a person" in (await here.refusal(request.request_id) or "")
    assert (await here.task()).waits_for is Wait.APPROVAL


async def test_always_holds_for_the_rest_of_the_run_and_for_that_rule_alone(here: SmallWorld) -> None:
    await at_work(here, "api", "ui", ask=(PUBLISH, "Bash(helm *)"))
    await ask(here, "npm publish")
    assert await answer(here, await question(here), AnswerKind.ALWAYS) is None
    again = await ask(here, "npm publish --tag next", "c-2", name="ui")
    assert again.result().verdict is Verdict.ALLOW
    assert [event.reason for event in await here.events(CommandAllowed, "ui")] == ["person:you said always"]
    assert not (await ask(here, "helm upgrade", "c-3", name="ui")).done()


async def test_always_lets_nothing_else_through_with_it(here: SmallWorld) -> None:
    await at_work(here)
    await ask(here, "npm publish")
    assert await answer(here, await question(here), AnswerKind.ALWAYS) is None
    assert (await ask(here, "npm publish && make deploy", "c-2")).result().verdict is Verdict.PASS
    assert (await ask(here, "npm publish && sudo ls", "c-3")).result().verdict is Verdict.DENY


async def test_what_always_does_not_cover_is_asked_when_the_program_would_ask(here: SmallWorld) -> None:
    await at_work(here)
    await ask(here, "npm publish")
    assert await answer(here, await question(here), AnswerKind.ALWAYS) is None
    assert not (await ask(here, "npm publish && make deploy", "c-2", prompted=True)).done()
    assert (await ask(here, "npm publish", "c-3", prompted=True)).result().verdict is Verdict.ALLOW


async def test_what_the_program_itself_would_ask_is_a_question(here: SmallWorld) -> None:
    await at_work(here)
    asked = await ask(here, "make deploy", prompted=True)
    found = await question(here)
    assert (found.rule, found.keys) == ("", ("Bash(make deploy)",))
    assert await answer(here, found, AnswerKind.ALWAYS) is None
    assert asked.result().verdict is Verdict.ALLOW
    assert (await ask(here, "make deploy", "c-2", prompted=True)).result().verdict is Verdict.ALLOW
    assert not (await ask(here, "make destroy", "c-3", prompted=True)).done()


async def test_a_prompt_for_what_a_rule_has_asked_is_the_same_question(here: SmallWorld) -> None:
    # The program does not say which call it prompts for.
    await at_work(here)
    asked = await ask(here, "npm publish")
    prompted = await ask(here, "npm publish", "prompt-1", prompted=True)
    assert await answer(here, await question(here), AnswerKind.ALLOW) is None
    assert (asked.result().verdict, prompted.result().verdict) == (Verdict.ALLOW, Verdict.ALLOW)
    assert (await ask(here, "npm publish", "prompt-2", prompted=True)).result().verdict is Verdict.ALLOW
    # The same again is another call: its own hook comes first, and what is prompted for then is what that one asked.
    again = await ask(here, "npm publish", "c-2")
    assert await answer(here, await question(here), AnswerKind.DENY) is None
    assert again.result().verdict is Verdict.DENY
    assert (await ask(here, "npm publish", "prompt-3", prompted=True)).result().verdict is Verdict.DENY
    assert len(await here.events(QuestionAsked, "api")) == 2


async def test_an_answer_to_a_rule_answers_no_prompt_that_no_rule_asks(here: SmallWorld) -> None:
    await at_work(here, ask=("Edit(migrations/**)",))
    workspace = (await here.store.read(lambda view: view.agents.workspaces()))[0].path
    asked = await ask(here, "./make.sh > x.sql", cwd=f"{workspace}/migrations")
    assert not asked.done()
    assert await answer(here, await question(here), AnswerKind.ALLOW) is None
    assert not (await ask(here, "./make.sh > x.sql", "prompt-1", cwd=f"{workspace}/src", prompted=True)).done()


async def test_allowed_once_is_not_replayed_where_always_let_the_hook_go_by(here: SmallWorld) -> None:
    await at_work(here)
    await ask(here, "npm publish a && ./deploy.sh")
    assert await answer(here, await question(here), AnswerKind.ALLOW) is None
    await ask(here, "npm publish b", "c-2")
    assert await answer(here, await question(here), AnswerKind.ALWAYS) is None
    assert (await ask(here, "npm publish a && ./deploy.sh", "c-3")).result().verdict is Verdict.PASS
    assert not (await ask(here, "npm publish a && ./deploy.sh", "prompt-1", prompted=True)).done()


async def test_an_answer_of_longer_ago_is_about_another_call(here: SmallWorld) -> None:
    await at_work(here)
    await ask(here, "npm publish")
    assert await answer(here, await question(here), AnswerKind.ALLOW) is None
    here.clock.move(timedelta(minutes=1))
    assert not (await ask(here, "npm publish", "prompt-1", prompted=True)).done()


async def test_what_no_rule_asks_is_asked_at_every_prompt(here: SmallWorld) -> None:
    await at_work(here)
    await ask(here, "make deploy", "prompt-1", prompted=True)
    assert await answer(here, await question(here), AnswerKind.ALLOW) is None
    assert not (await ask(here, "make deploy", "prompt-2", prompted=True)).done()
    # The same prompt, as the next leader hears it.
    assert (await ask(here, "make deploy", "prompt-1", prompted=True)).result().verdict is Verdict.ALLOW


async def test_what_is_too_long_to_be_told_apart_is_asked_again(here: SmallWorld) -> None:
    await at_work(here)
    long = f"npm publish {'x' * ABOUT}"
    await ask(here, long)
    assert await answer(here, await question(here), AnswerKind.ALLOW) is None
    assert not (await ask(here, f"{long} y", "prompt-1", prompted=True)).done()


async def test_a_question_outlives_its_leader_and_is_answered_under_the_next(here: SmallWorld) -> None:
    leader = await at_work(here)
    await ask(here, "npm publish")
    first = await question(here)
    await leader.die()
    await (await here.lead()).run()
    again = await ask(here, "npm publish")
    assert await question(here) == first
    assert await answer(here, first, AnswerKind.ALLOW) is None
    assert again.result().verdict is Verdict.ALLOW
    assert len(await here.events(QuestionAsked)) == 1


async def test_what_was_answered_while_nobody_led_is_known_to_the_next_leader(here: SmallWorld) -> None:
    leader = await at_work(here)
    await ask(here, "npm publish")
    found = await question(here)
    await leader.die()
    body = Answer(run_id=found.run_id, question_id=found.question_id, answer=AnswerKind.ALLOW)
    await here.ask(body)
    await (await here.lead()).run()
    assert (await ask(here, "npm publish")).result().verdict is Verdict.ALLOW


async def test_what_expired_while_nobody_led_is_denied_by_the_next_leader(here: SmallWorld) -> None:
    leader = await at_work(here)
    await ask(here, "npm publish")
    await leader.die()
    here.clock.move(timedelta(minutes=11))
    await (await here.lead()).run()
    assert (await ask(here, "npm publish")).result().verdict is Verdict.DENY
    assert len(await here.events(QuestionExpired)) == 1


async def test_a_question_is_withdrawn_with_its_agent(here: SmallWorld) -> None:
    leader = await at_work(here)
    asked = await ask(here, "npm publish")
    found = await question(here)
    await here.ask(Cancel(run_id=found.run_id))
    await leader.run()
    assert len(await here.events(QuestionWithdrawn)) == 1
    assert asked.result().verdict is Verdict.DENY
    settled = await here.store.read(lambda view: view.questions.get(found.question_id))
    assert settled is not None
    assert settled.state is QuestionState.WITHDRAWN
    assert (await here.task()).state is TaskState.CANCELLED


async def test_two_questions_of_one_agent_are_answered_one_by_one(here: SmallWorld) -> None:
    await at_work(here)
    first = await ask(here, "npm publish", "c-1")
    here.clock.move(timedelta(seconds=1))
    second = await ask(here, "npm publish --tag next", "c-2")
    one, two = await here.store.read(lambda view: view.questions.open())
    assert await answer(here, one, AnswerKind.DENY) is None
    assert (first.done(), second.done()) == (True, False)
    waiting = await here.task()
    assert waiting.waits_for is Wait.APPROVAL
    assert two.question_id in waiting.detail
    assert await answer(here, two, AnswerKind.ALLOW) is None
    assert second.result().verdict is Verdict.ALLOW
    assert (await here.task()).waits_for is None


async def test_the_turn_ends_after_an_answer_as_any_other(here: SmallWorld) -> None:
    leader = await at_work(here)
    await ask(here, "npm publish")
    assert await answer(here, await question(here), AnswerKind.ALLOW) is None
    process = here.process()
    process.write("api.py", "1")
    process.done()
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    waits = [event.waits_for for event in await here.events(TaskWaited, "api")]
    assert waits == [Wait.APPROVAL, None]


async def test_a_task_that_came_back_from_its_gate_still_says_what_it_waits_for(here: SmallWorld) -> None:
    leader = await at_work(here)
    await ask(here, "npm publish")
    process = here.process()
    process.write("api.py", "broken")
    process.done()
    await leader.run()
    again = await here.task()
    assert (again.round, again.state, again.waits_for) == (1, TaskState.RUNNING, Wait.APPROVAL)


async def test_whoever_else_speaks_there_is_an_event(here: SmallWorld) -> None:
    leader = await at_work(here)
    (agent,) = await here.store.read(lambda view: view.agents.live())
    here.warden.intrude(agent.agent_id)
    await leader.run()
    assert [event.agent_id for event in await here.events(WardenRefused, "api")] == [agent.agent_id]


async def test_a_change_that_waits_in_the_merge_queue_anyway_is_not_asked_about_twice(here: SmallWorld) -> None:
    await at_work(here)
    told = await ask(here, "echo on: push > .github/workflows/ci.yml")
    assert told.result().verdict is Verdict.PASS
    assert [event.rule for event in await here.events(CommandAllowed, "api")] == ["ci-files"]


async def test_where_nothing_is_merged_it_is_asked_about(here: SmallWorld) -> None:
    config = AgentConfig(name="coder", program="line")
    spec = replace(run_spec(task(), configs=(config,)), target=None, repository=None)
    await here.submit(spec)
    leader = await here.lead()
    await leader.run()
    assert not (await ask(here, "echo on: push > .github/workflows/ci.yml")).done()
    assert (await question(here)).rule == "ci-files"


async def end_turn(here: SmallWorld, leader: Leader) -> None:
    process = here.process()
    process.write("api.py", "1")
    process.done()
    await leader.run_out()


async def test_garbage_at_a_warden_is_told_a_few_times_and_then_counted(here: SmallWorld) -> None:
    leader = await at_work(here)
    (agent,) = await here.store.read(lambda view: view.agents.live())
    for _ in range(1000):
        here.warden.intrude(agent.agent_id)
        here.warden.intrude(agent.agent_id, "another reason")
    await leader.run()
    assert [event.times for event in await here.events(WardenRefused, "api")] == [1] * 2 * FEW
    await end_turn(here, leader)
    sums = (await here.events(WardenRefused, "api"))[2 * FEW :]
    assert [(event.reason, event.times) for event in sums] == [
        ("somebody else spoke", 1000 - FEW),
        ("another reason", 1000 - FEW),
    ]


async def test_ever_new_garbage_is_counted_together(here: SmallWorld) -> None:
    leader = await at_work(here)
    (agent,) = await here.store.read(lambda view: view.agents.live())
    for number in range(MANY + 50):
        here.warden.intrude(agent.agent_id, f"reason {number}")
    await end_turn(here, leader)
    told = await here.events(WardenRefused, "api")
    assert (len(told), told[-1].reason, told[-1].times) == (MANY + 1, "more of the kind", 50)


async def test_what_is_denied_again_and_again_is_denied_at_once_and_counted(here: SmallWorld) -> None:
    leader = await at_work(here)
    told = [(await ask(here, "sudo ls", f"c-{number}")).result() for number in range(FEW + 5)]
    assert {(ruling.verdict, ruling.reason) for ruling in told} == {(Verdict.DENY, told[0].reason)}
    assert "Kapelle's rule privilege: `sudo`" in told[0].reason
    assert len(await here.events(CommandDenied, "api")) == FEW
    await ask(here, "sudo id")
    await end_turn(here, leader)
    events = await here.events(CommandDenied, "api")
    assert [(event.what, event.times) for event in events[FEW:]] == [("sudo id", 1), ("sudo ls", 5)]


async def test_an_agent_has_only_so_many_questions_open(here: SmallWorld) -> None:
    leader = await at_work(here)
    asked = [await ask(here, "npm publish", f"c-{number}") for number in range(MOST_OPEN)]
    over = (await ask(here, "npm publish", "c-over")).result()
    assert over.verdict is Verdict.DENY
    assert f"{MOST_OPEN} questions of this agent wait for an answer already" in over.reason
    assert [event.rule for event in await here.events(CommandDenied, "api")] == ["questions"]
    assert len(await here.events(QuestionAsked)) == MOST_OPEN
    first = (await here.store.read(lambda view: view.questions.open()))[0]
    assert await answer(here, first, AnswerKind.DENY) is None
    assert sum(each.done() for each in asked) == 1
    assert not (await ask(here, "npm publish", "c-later")).done()
    await end_turn(here, leader)
