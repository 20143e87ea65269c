from datetime import timedelta
from typing import Any

import pytest

from kapelle.apps.health import health
from kapelle.core.brake_events import BudgetAsked, BudgetRaised, BudgetStopped, BudgetWithdrawn
from kapelle.core.budget import Allowance, Period, Resource, Scope, StandingBudget
from kapelle.core.conversation import Trouble
from kapelle.core.events import AttemptStarted, BudgetReached, BudgetWarned
from kapelle.core.ids import RequestId, RunId, SpentId
from kapelle.core.ports import DriverCapabilities
from kapelle.core.requests import AnswerSpent, Cancel, Request
from kapelle.core.run import Limits
from kapelle.core.spent import OnSpent, SpentAnswer, SpentBudget, SpentState
from kapelle.core.task import TaskState, Wait
from kapelle.testing.drivers import LineDriver
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import ScriptedProcess
from kapelle.testing.worlds import Leader, SmallWorld

USD = Allowance(usd=1.0)


def spends(here: SmallWorld, *, calls: int = 3, usd: float = 0.5) -> None:
    """Let every agent make model calls in each of its turns, and end it with the first that is refused."""

    def script(process: ScriptedProcess, _: str) -> None:
        for _number in range(calls):
            refusal = here.gateway.call(process.token, usd=usd)
            if refusal is not None:
                process.trouble(Trouble.BUDGET, refusal)
                return
        process.write(f"{process.task}.py", "1")
        process.done("done")

    here.host.otherwise = script


async def submitted(here: SmallWorld, *names: str, name: str = "shop", own: Allowance | None = None, **limits: Any) -> RunId:
    specs = [task(each, max_attempts=1, budget=own or Allowance()) for each in names]
    return await here.submit(run_spec(*specs, name=name, project="shop", limits=Limits(**limits)))


async def open_ones(here: SmallWorld) -> list[SpentBudget]:
    rows = await here.store.read(lambda view: view.brakes.spent())
    return [row for row in rows if row.state is SpentState.OPEN]


async def answer(here: SmallWorld, row: SpentBudget, more: float | None, *, by: str = "person:you") -> RequestId:
    said = SpentAnswer.STOP if more is None else SpentAnswer.RAISE
    body = AnswerSpent(run_id=row.run_id, spent_id=row.spent_id, answer=said, more=more or 0.0, reason="because")
    request_id = RequestId(here.ports.new_id("q"))
    await here.store.ask([Request(request_id=request_id, body=body, principal=by, asked_at=here.clock.now())])
    return request_id


@pytest.fixture
async def leader(here: SmallWorld) -> Leader:
    here.set(slots=10)
    return await here.lead()


async def test_a_task_whose_budget_is_spent_waits_and_its_agent_s_room_is_free(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    await submitted(here, "api", own=USD)
    await leader.run_out()
    (row,) = await open_ones(here)
    assert (row.name, row.resource, row.limit, row.spent) == ("task api", Resource.USD, 1.0, 1.0)
    waiting = await here.task()
    assert (waiting.state, waiting.waits_for, waiting.attempts) == (TaskState.RUNNING, Wait.BUDGET, 1)
    assert (
        waiting.detail
        == f"the budget of task api is spent ($1.00 of $1.00): kapelle answer {row.spent_id} raise AMOUNT, or stop"
    )
    assert not here.host.live()
    (asked,) = await here.events(BudgetAsked, "api")
    assert (asked.spent_id, asked.limit, asked.spent, asked.deadline_at) == (row.spent_id, 1.0, 1.0, None)
    assert len(await here.events(BudgetReached)) == 1


async def test_a_budget_that_is_raised_lets_the_same_conversation_go_on(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    await submitted(here, "api", own=USD)
    await leader.run_out()
    (row,) = await open_ones(here)
    request = await answer(here, row, 2.0)
    await leader.run_out()
    assert await here.refusal(request) is None
    assert (await here.task()).state is TaskState.COMPLETED
    (attempt,) = await here.attempts()
    assert (attempt.number, attempt.crashes, attempt.interruptions) == (1, 0, 0)
    first, second = here.host.processes
    assert second.launch.argv == first.launch.argv or "resume" in " ".join(second.launch.argv)
    (raised,) = await here.events(BudgetRaised)
    assert (raised.more, raised.limit, raised.principal, raised.reason) == (2.0, 3.0, "person:you", "because")


async def test_stop_fails_what_waits_and_keeps_its_work(here: SmallWorld, leader: Leader) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        process.write("half.py", "1")
        here.gateway.call(process.token, usd=1.0)
        process.trouble(Trouble.BUDGET, here.gateway.call(process.token, usd=1.0) or "")

    here.host.otherwise = script
    await submitted(here, "api", "ui", budget=USD)
    await leader.run_out()
    (row,) = await open_ones(here)
    await answer(here, row, None)
    await leader.run_out()
    for name in ("api", "ui"):
        failed = await here.task(name)
        assert failed.failure is not None
        assert (failed.state, failed.failure.kind) == (TaskState.FAILED, "budget")
        assert failed.failure.message == "the budget of run shop is spent ($1.00 of $1.00), and person:you said stop: because"
    (stopped,) = await here.events(BudgetStopped)
    assert (stopped.tasks, stopped.principal, stopped.spent) == (2, "person:you", 1.0)
    assert len(here.kept) == 2


async def test_stop_is_done_although_nobody_leads(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    await submitted(here, "api", own=USD)
    await leader.run_out()
    (row,) = await open_ones(here)
    await answer(here, row, None)
    await leader.step("submit")
    assert (await here.task()).state is TaskState.FAILED


async def test_many_tasks_of_one_budget_are_one_question(here: SmallWorld, leader: Leader) -> None:
    here.set(slots=2)
    spends(here, usd=1.0)
    await leader.die()
    leader = await here.lead()
    await submitted(here, "a", "b", "c", "d", budget=USD)
    await leader.run_out()
    (row,) = await open_ones(here)
    tasks = await here.tasks()
    assert {each.waits_for for each in tasks.values()} == {Wait.BUDGET}
    # Those that had not begun were given no agent.
    assert len(here.host.processes) == 2
    await answer(here, row, 100.0)
    await leader.run_out()
    assert {each.state for each in (await here.tasks()).values()} == {TaskState.COMPLETED}
    assert len(await here.events(BudgetAsked)) == 1
    assert len(await here.events(AttemptStarted)) == 4


async def test_two_budgets_that_are_reached_at_the_same_moment_each_ask_once(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    standing = (StandingBudget(scope=Scope.PROJECT, allowance=USD),)
    await submitted(here, "api", "ui", budget=USD, standing=standing)
    await leader.run_out()
    first, second = await open_ones(here)
    assert {first.name, second.name} == {"run shop", "project shop"}
    await answer(here, first, 10.0)
    await leader.run_out()
    # The other one is still spent.
    assert {each.waits_for for each in (await here.tasks()).values()} == {Wait.BUDGET}
    assert [row.spent_id for row in await open_ones(here)] == [second.spent_id]
    assert second.spent_id in (await here.task("api")).detail
    await answer(here, second, 10.0)
    await leader.run_out()
    assert {each.state for each in (await here.tasks()).values()} == {TaskState.COMPLETED}
    assert len(await here.events(BudgetAsked)) == 2


async def test_a_budget_that_was_raised_is_warned_of_and_asked_about_again(here: SmallWorld, leader: Leader) -> None:
    spends(here, calls=6, usd=0.5)
    await submitted(here, "api", own=USD)
    await leader.run_out()
    for more in (1.0, 1.0):
        (row,) = await open_ones(here)
        await answer(here, row, more)
        await leader.run_out()
    assert (await here.task()).waits_for is Wait.BUDGET
    assert [event.limit for event in await here.events(BudgetAsked)] == [1.0, 2.0, 3.0]
    assert [event.limit for event in await here.events(BudgetWarned)] == [1.0, 2.0, 3.0]
    assert [event.spent for event in await here.events(BudgetReached)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("more", [0.0, -1.0, 0.5])
async def test_a_raise_that_helps_nobody_is_refused(here: SmallWorld, leader: Leader, more: float) -> None:
    spends(here, usd=1.5)
    await submitted(here, "api", own=USD)
    await leader.run_out()
    (row,) = await open_ones(here)
    request = await answer(here, row, more)
    await leader.run_out()
    assert await here.refusal(request) == (
        "the budget of task api would still be spent ($1.50 of $1.00); raise it by more than $0.50"
    )
    assert [each.spent_id for each in await open_ones(here)] == [row.spent_id]


async def test_only_a_person_answers_and_only_once(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    await submitted(here, "api", own=USD)
    await leader.run_out()
    (row,) = await open_ones(here)
    refused = await answer(here, row, 5.0, by="agent:g-1")
    await leader.run_out()
    assert (await here.refusal(refused) or "").startswith("only a person can answer")
    await answer(here, row, 5.0)
    late = await answer(here, row, None)
    await leader.run_out()
    assert await here.refusal(late) == f"the budget {row.spent_id} was settled already: raised"
    nowhere = await here.ask(AnswerSpent(run_id=row.run_id, spent_id=SpentId("b-nowhere"), answer=SpentAnswer.STOP))
    await leader.run_out()
    assert await here.refusal(nowhere) == "there is no spent budget b-nowhere"


async def test_nobody_is_asked_for_longer_than_was_said(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    await submitted(here, "api", own=USD, answer_within=timedelta(hours=1))
    later = await leader.run()
    assert later == here.clock.now() + timedelta(hours=1)
    assert (await here.task()).waits_for is Wait.BUDGET
    here.clock.move_to(later)
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert failed.failure.message == "the budget of task api is spent ($1.00 of $1.00), and nobody raised it in time"
    (stopped,) = await here.events(BudgetStopped)
    assert stopped.principal == ""


async def test_a_question_outlives_the_leader_and_is_not_asked_again(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    await submitted(here, "api", "ui", budget=USD)
    await leader.run_out()
    (row,) = await open_ones(here)
    await leader.die()
    leader = await here.lead()
    await leader.run_out()
    assert [each.spent_id for each in await open_ones(here)] == [row.spent_id]
    await answer(here, row, 10.0)
    await leader.run_out()
    assert {each.state for each in (await here.tasks()).values()} == {TaskState.COMPLETED}
    assert len(await here.events(BudgetReached)) == 1


async def test_a_raise_outlives_the_leader(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    await submitted(here, "api", own=USD)
    await leader.run_out()
    (row,) = await open_ones(here)
    await answer(here, row, 0.75)
    await leader.step("submit")
    await leader.die()
    leader = await here.lead()
    await leader.run_out()
    assert (await here.events(BudgetReached))[-1].limit == 1.75


async def test_a_leader_that_dies_before_it_has_asked_is_followed_by_one_that_does(here: SmallWorld, leader: Leader) -> None:
    await submitted(here, "api", own=USD)
    await leader.run()
    process = here.process()
    here.gateway.call(process.token, usd=1.0)
    await leader.run()
    refusal = here.gateway.call(process.token, usd=1.0)
    await leader.die()
    process.trouble(Trouble.BUDGET, refusal or "")
    spends(here)
    leader = await here.lead()
    await leader.run_out()
    (row,) = await open_ones(here)
    assert row.spent == 1.0
    assert (await here.task()).waits_for is Wait.BUDGET
    await answer(here, row, 10.0)
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_a_day_s_budget_goes_on_by_itself(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    standing = (StandingBudget(scope=Scope.DAY, allowance=USD, per=Period.DAY),)
    here.clock.move_to(here.clock.now().replace(hour=12, minute=0, second=0, microsecond=0))
    midnight = (here.clock.now() + timedelta(days=1)).replace(hour=0)
    await submitted(here, "api", standing=standing)
    assert await leader.run() == midnight
    (row,) = await open_ones(here)
    assert (await here.task()).due_at == midnight
    here.clock.move_to(midnight)
    spends(here, calls=1)
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert await open_ones(here) == []
    assert [event.spent_id for event in await here.events(BudgetWithdrawn)] == [row.spent_id]


async def test_a_question_that_means_nothing_any_more_is_withdrawn(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    run_id = await submitted(here, "api", budget=USD)
    await leader.run_out()
    await here.ask(Cancel(run_id=run_id))
    await leader.run_out()
    assert await open_ones(here) == []
    assert len(await here.events(BudgetWithdrawn)) == 1


async def test_a_run_that_does_not_ask_fails_at_once_also_when_another_does(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    standing = (StandingBudget(scope=Scope.PROJECT, allowance=USD),)
    await submitted(here, "api", standing=standing)
    await leader.run_out()
    await submitted(here, "other", name="next", standing=standing, on_spent=OnSpent.STOP)
    await leader.run_out()
    failed = await here.task("other")
    assert failed.failure is not None
    assert failed.failure.message == "the budget of project shop is spent ($1.00 of $1.00)"
    assert len(here.host.processes) == 1
    assert (await here.task("api")).waits_for is Wait.BUDGET


async def test_a_later_run_under_a_project_s_budget_that_was_stopped_fails_without_an_agent(
    here: SmallWorld, leader: Leader
) -> None:
    spends(here)
    standing = (StandingBudget(scope=Scope.PROJECT, allowance=USD),)
    await submitted(here, "api", standing=standing)
    await leader.run_out()
    (row,) = await open_ones(here)
    await answer(here, row, None)
    await leader.run_out()
    await submitted(here, "later", name="next", standing=standing)
    await leader.run_out()
    assert (await here.task("later")).state is TaskState.FAILED
    assert len(here.host.processes) == 1
    # One with a higher limit has something left.
    more = (StandingBudget(scope=Scope.PROJECT, allowance=Allowance(usd=10.0)),)
    await submitted(here, "richer", name="third", standing=more)
    await leader.run_out()
    assert (await here.task("richer")).state is TaskState.COMPLETED


async def test_an_agent_without_a_conversation_waits_too_and_begins_anew(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    await leader.die()
    drivers = {**here.ports.drivers, "once": LineDriver("once", DriverCapabilities(uses_gateway=True))}
    here.replace(drivers=drivers)
    leader = await here.lead()
    await here.submit(run_spec(task("api", agent="once", max_attempts=1, budget=USD), limits=Limits()))
    await leader.run_out()
    waiting = await here.task()
    assert (waiting.state, waiting.waits_for, waiting.attempts) == (TaskState.PENDING, Wait.BUDGET, 0)
    (row,) = await open_ones(here)
    await answer(here, row, 10.0)
    await leader.run_out()
    assert (await here.task()).state is TaskState.COMPLETED


async def test_whoever_waits_for_a_budget_does_not_look_as_if_it_worked(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    await submitted(here, "api", own=USD)
    await leader.run()
    live = await here.store.read(lambda view: list(view.agents.live()))
    assert live == []
    found = await here.store.read(lambda view: health(view, here.clock.now()))
    assert (found.agents, found.work.at_work, found.work.waiting) == ((), 0, 1)


# --- Answers while nobody leads ---


async def applied(here: SmallWorld, leader: Leader) -> Leader:
    """Apply what was asked as somebody does who takes the lead for just that; return a leader that may go on."""
    await leader.die()
    brief = await here.lead(recover=False)
    await brief.step("submit")
    return brief


async def test_a_budget_of_a_run_that_has_ended_meanwhile_is_not_raised(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    run_id = await submitted(here, "api", budget=USD)
    await leader.run_out()
    (row,) = await open_ones(here)
    await here.ask(Cancel(run_id=run_id))
    asked = await answer(here, row, 5.0)
    brief = await applied(here, leader)
    said = f"the budget {row.spent_id} is asked about no more: nobody spends under the budget of run shop any more"
    assert await here.refusal(asked) == said
    assert await here.remedy(asked) == "`kapelle inbox` lists what waits for you."
    assert await open_ones(here) == []
    await brief.run_out()
    assert len(await here.events(BudgetWithdrawn)) == 1
    assert await here.events(BudgetRaised) == []


async def test_a_budget_is_raised_after_its_deadline_as_long_as_nobody_has_stopped_it(here: SmallWorld, leader: Leader) -> None:
    spends(here)
    await submitted(here, "api", own=USD, answer_within=timedelta(hours=1))
    await leader.run()
    (row,) = await open_ones(here)
    await leader.die()
    here.clock.move(timedelta(hours=2))
    asked = await answer(here, row, 5.0)
    brief = await applied(here, leader)
    assert await here.refusal(asked) is None
    await brief.run_out()
    assert (await here.task()).state is TaskState.COMPLETED
    assert await here.events(BudgetStopped) == []
