import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kapelle.core.budget import Allowance, Period, Scope, StandingBudget, Usage
from kapelle.core.calls import Refusal
from kapelle.core.conversation import Trouble
from kapelle.core.events import BudgetReached, BudgetWarned, ModelCalled
from kapelle.core.gateway import Upstream
from kapelle.core.ids import RunId
from kapelle.core.isolation_events import LimitMet
from kapelle.core.requests import Retry
from kapelle.core.run import Limits
from kapelle.core.spent import OnSpent
from kapelle.core.steering import Freeze, Thaw
from kapelle.core.task import TaskState
from kapelle.testing.factories import run_spec, task
from kapelle.testing.fakes import HELD, Flight
from kapelle.testing.hosts import ScriptedProcess, writes
from kapelle.testing.worlds import Leader, SmallWorld


async def at_work(here: SmallWorld, *names: str, task_usd: float | None = None, run_usd: float | None = None) -> Leader:
    here.set(slots=10)
    specs = [task(name, budget=Allowance(usd=task_usd), max_attempts=1) for name in names]
    await here.submit(run_spec(*specs, name="shop", limits=Limits(budget=Allowance(usd=run_usd))))
    leader = await here.lead()
    await leader.run()
    return leader


def calls(here: SmallWorld, name: str, usd: float) -> str | None:
    return here.gateway.call(here.process(name).token, usd=usd)


async def test_every_model_call_is_booked_and_told(here: SmallWorld) -> None:
    leader = await at_work(here, "api")
    calls(here, "api", 0.25)
    calls(here, "api", 0.5)
    await leader.run()
    told = await here.events(ModelCalled, "api")
    usage = Usage(input_tokens=10, output_tokens=5)
    assert [(event.model, event.cost_usd, event.usage, event.status) for event in told] == [
        ("model-1", 0.25, usage, 200),
        ("model-1", 0.5, usage, 200),
    ]
    (overview,) = await here.store.read(lambda view: view.runs.overviews())
    assert (overview.spend.cost_usd, overview.spend.calls) == (0.75, 2)


async def test_a_task_may_call_until_its_budget_is_spent(here: SmallWorld) -> None:
    leader = await at_work(here, "api", task_usd=1.0)
    assert calls(here, "api", 0.75) is None
    assert calls(here, "api", 0.75) is None
    assert calls(here, "api", 0.75) == "the budget of task api is spent ($1.50 of $1.00)"
    await leader.run()
    (event,) = await here.events(BudgetReached, "api")
    assert (event.budget, event.limit, event.spent) == ("task api", 1.0, 1.5)


async def test_a_budget_that_is_reached_is_told_once(here: SmallWorld) -> None:
    leader = await at_work(here, "api", task_usd=1.0)
    for _ in range(5):
        calls(here, "api", 1.0)
        await leader.run()
    assert len(await here.events(BudgetReached)) == 1
    assert len(await here.events(ModelCalled)) == 1


async def test_the_tasks_of_a_run_share_its_budget(here: SmallWorld) -> None:
    leader = await at_work(here, "api", "ui", run_usd=1.0)
    assert calls(here, "api", 1.0) is None
    assert calls(here, "ui", 1.0) == "the budget of run shop is spent ($1.00 of $1.00)"
    await leader.run()
    assert [event.budget for event in await here.events(BudgetReached)] == ["run shop"]


async def test_two_budgets_that_are_spent_are_both_kept(here: SmallWorld) -> None:
    leader = await at_work(here, "api", "ui", task_usd=1.0, run_usd=1.5)
    assert calls(here, "api", 1.0) is None
    assert calls(here, "api", 1.0) == "the budget of task api is spent ($1.00 of $1.00)"
    assert calls(here, "ui", 0.75) is None
    assert calls(here, "ui", 0.75) == "the budget of run shop is spent ($1.75 of $1.50)"
    assert calls(here, "api", 1.0) == "the budget of task api is spent ($1.00 of $1.00)"
    await leader.run()
    assert [event.budget for event in await here.events(BudgetReached)] == ["task api", "run shop"]
    (overview,) = await here.store.read(lambda view: view.runs.overviews())
    assert overview.spend.cost_usd == 1.75


async def test_spend_passes_a_budget_by_no_more_than_the_calls_in_flight(here: SmallWorld) -> None:
    names = [f"t{number}" for number in range(5)]
    leader = await at_work(here, *names, run_usd=1.0)
    flights = [here.gateway.begin(here.process(name).token) for name in names]
    for flight in flights:
        assert isinstance(flight, Flight)
        here.gateway.end(flight, usd=0.5)
    refusals = [calls(here, name, 0.5) for name in names]
    assert None not in refusals
    await leader.run()
    (overview,) = await here.store.read(lambda view: view.runs.overviews())
    assert overview.spend.cost_usd == 2.5
    assert overview.spend.cost_usd <= 1.0 + 0.5 * len(names)


async def test_an_agent_whose_budget_is_spent_fails_its_task_for_good(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        here.gateway.call(process.token, usd=2.0)
        refusal = here.gateway.call(process.token, usd=2.0)
        process.trouble(Trouble.BUDGET, refusal or "")

    here.host.otherwise = script
    limits = Limits(on_spent=OnSpent.STOP)
    await here.submit(run_spec(task("api", budget=Allowance(usd=1.0), max_attempts=3), limits=limits))
    leader = await here.lead()
    await leader.run_out()
    failed = await here.task()
    assert failed.failure is not None
    assert (failed.state, failed.failure.kind) == (TaskState.FAILED, "budget")
    assert failed.failure.message == "the budget of task api is spent ($2.00 of $1.00)"
    assert len(here.host.processes) == 1


async def test_a_new_leader_knows_what_was_spent(here: SmallWorld) -> None:
    leader = await at_work(here, "api", task_usd=1.0, run_usd=10.0)
    calls(here, "api", 1.0)
    await leader.run()
    await leader.die()
    successor = await here.lead()
    await successor.run()
    assert calls(here, "api", 1.0) == "the budget of task api is spent ($1.00 of $1.00)"


async def test_calls_of_all_attempts_count_against_the_budget(here: SmallWorld) -> None:
    here.set(crashes=0)
    await here.submit(run_spec(task("api", budget=Allowance(usd=1.0))))
    leader = await here.lead()
    await leader.run()
    calls(here, "api", 1.0)
    here.process().exit(1)
    later = await leader.run()
    assert later is not None
    here.clock.move_to(later)
    await leader.run()
    assert len(here.host.processes) == 2
    assert calls(here, "api", 1.0) == "the budget of task api is spent ($1.00 of $1.00)"


async def test_without_a_budget_nothing_is_refused(here: SmallWorld) -> None:
    await at_work(here, "api")
    assert [calls(here, "api", 100.0) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("budget", ["task_usd", "run_usd"])
async def test_a_model_without_a_price_keeps_no_budget_and_is_refused(here: SmallWorld, budget: str) -> None:
    await at_work(here, "api", **{budget: 5.0})
    token = here.process().token
    assert here.gateway.call(token, usd=0.0, model="model-x", priced=False) is None
    refusal = here.gateway.call(token, usd=0.0)
    assert refusal == "there is a budget, and the price of model-x is not known; name a price table in KAPELLE_PRICES"


async def test_a_model_without_a_price_is_let_through_where_there_is_no_budget(here: SmallWorld) -> None:
    await at_work(here, "api")
    token = here.process().token
    assert [here.gateway.call(token, usd=0.0, priced=False) for _ in range(2)] == [None, None]


async def test_an_agent_that_was_stopped_may_call_no_more(here: SmallWorld) -> None:
    leader = await at_work(here, "api")
    flight = here.gateway.begin(here.process().token)
    assert isinstance(flight, Flight)
    here.process().exit(1)
    await leader.settle()
    refusal = leader.meter.admit(replace(flight.call, call_id="m-2"))
    assert isinstance(refusal, Refusal)
    assert refusal.message == "this agent has been stopped"
    assert calls(here, "api", 1.0) == "unknown token"


async def test_without_the_gateway_the_programs_own_count_is_booked_turn_by_turn(here: SmallWorld) -> None:
    def turn(content: str, cost: float) -> None:
        here.process().write("api.py", content)
        here.process().done(cost=cost)

    await here.submit(run_spec(upstream=Upstream(bypass=True)))
    leader = await here.lead()
    await leader.run()
    # The program counts up over the whole conversation.
    turn("broken", 0.25)
    await leader.run()
    turn("mended", 1.0)
    await leader.run()
    (overview,) = await here.store.read(lambda view: view.runs.overviews())
    assert (overview.spend.cost_usd, overview.spend.calls) == (1.0, 2)


async def test_with_the_gateway_the_programs_own_count_is_not_booked(here: SmallWorld) -> None:
    leader = await at_work(here, "api")
    here.process().write("api.py", "1")
    here.process().done(cost=5.0)
    await leader.run()
    (overview,) = await here.store.read(lambda view: view.runs.overviews())
    assert overview.spend.cost_usd == 0.0


async def test_calls_whose_commit_failed_are_written_down_with_the_next(here: SmallWorld) -> None:
    leader = await at_work(here, "api")
    calls(here, "api", 1.0)
    here.store.die()
    with pytest.raises(Exception, match="before the commit"):
        await leader.step("execute")
    here.store.heal()
    await leader.step("execute")
    assert len(await here.events(ModelCalled)) == 1


async def test_once_the_runs_budget_is_spent_no_further_task_of_it_gets_anywhere(here: SmallWorld) -> None:
    def script(process: ScriptedProcess, _: str) -> None:
        refusal = here.gateway.call(process.token, usd=1.0)
        if refusal is not None:
            process.trouble(Trouble.BUDGET, refusal)
        else:
            writes({f"{process.task}.py": "1"})(process, "")

    here.host.otherwise = script
    limits = Limits(budget=Allowance(usd=1.0), on_spent=OnSpent.STOP)
    await here.submit(run_spec(task("first"), task("second", needs=("first",)), name="shop", limits=limits))
    leader = await here.lead()
    await leader.run_out()
    tasks = await here.tasks()
    assert tasks["first"].state is TaskState.COMPLETED
    assert tasks["second"].failure is not None
    assert tasks["second"].failure.message == "the budget of run shop is spent ($1.00 of $1.00)"
    assert len(here.host.processes) == 2


async def test_more_at_once_than_one_agent_may_have_is_told_once(here: SmallWorld) -> None:
    leader = await at_work(here, "api")
    (agent,) = await here.store.read(lambda view: view.agents.live())
    for _ in range(100):
        leader.meter.crowded(agent.agent_id, "it has too many connections to its model open at once")
    await leader.run()
    (event,) = await here.events(LimitMet, "api")
    assert (event.agent_id, event.reason) == (agent.agent_id, "it has too many connections to its model open at once")


# --- More than money, and more than one run ---


async def bounded(here: SmallWorld, *names: str, project: str = "shop", **limits: Any) -> Leader:
    here.set(slots=10, crashes=0)
    specs = [task(name, max_attempts=1) for name in names]
    await here.submit(run_spec(*specs, name="shop", project=project, limits=Limits(**limits)))
    leader = await here.lead()
    await leader.run()
    return leader


@pytest.mark.parametrize(
    ("allowance", "refusal"),
    [
        (Allowance(turns=2), "the budget of run shop is spent (2 of 2 model calls)"),
        (Allowance(tokens=30), "the budget of run shop is spent (30 of 30 tokens)"),
    ],
)
async def test_turns_and_tokens_are_bounded_as_money_is(here: SmallWorld, allowance: Allowance, refusal: str) -> None:
    await bounded(here, "api", "ui", budget=allowance)
    assert [calls(here, "api", 0), calls(here, "ui", 0), calls(here, "api", 0)] == [None, None, refusal]


async def test_the_time_of_all_agents_counts(here: SmallWorld) -> None:
    await bounded(here, "api", "ui", budget=Allowance(time=timedelta(minutes=3)))
    here.clock.move(timedelta(minutes=1))
    assert calls(here, "api", 0) is None
    here.clock.move(timedelta(seconds=30))
    assert calls(here, "api", 0) == "the budget of run shop is spent (0:03:00 of 0:03:00)"


async def test_the_time_of_agents_that_have_ended_is_known_to_the_next_leader(here: SmallWorld) -> None:
    leader = await bounded(here, "api", "ui", budget=Allowance(time=timedelta(minutes=3)))
    here.clock.move(timedelta(minutes=1))
    here.process("api").exit(1)
    await leader.run()
    await leader.die()
    successor = await here.lead()
    await successor.run()
    here.clock.move(timedelta(minutes=1))
    assert calls(here, "ui", 0) == "the budget of run shop is spent (0:03:00 of 0:03:00)"


STANDING = (Scope.PROJECT, Scope.ACCOUNT, Scope.DAY)
HOURS = timedelta(hours=2)


def standing(scope: Scope, per: Period = Period.EVER, **bounds: Any) -> dict[str, Any]:
    return {"standing": (StandingBudget(scope=scope, allowance=Allowance(**bounds), per=per),)}


@pytest.mark.parametrize("scope", STANDING)
@pytest.mark.parametrize(
    ("bounds", "refusal"),
    [
        ({"turns": 2}, "is spent (2 of 2 model calls)"),
        ({"tokens": 30}, "is spent (30 of 30 tokens)"),
        ({"cached_tokens": 40}, "is spent (40 of 40 cached tokens)"),
    ],
)
async def test_more_than_one_run_is_bounded_in_turns_and_tokens(
    here: SmallWorld, scope: Scope, bounds: dict[str, int], refusal: str
) -> None:
    await bounded(here, "api", "ui", **standing(scope, **bounds))
    usage = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=20)
    said = [here.gateway.call(here.process(name).token, usd=0, usage=usage) for name in ("api", "ui", "api")]
    assert said[:2] == [None, None]
    assert (said[2] or "").endswith(refusal)


@pytest.mark.parametrize("scope", STANDING)
async def test_the_working_time_of_all_runs_is_bounded(here: SmallWorld, scope: Scope) -> None:
    leader = await bounded(here, "one", **standing(scope, time=timedelta(minutes=3)))
    here.clock.move(timedelta(minutes=1))
    here.process("one").exit(1)
    await leader.settle()
    # It has ended, and that is not written down yet when the next run, which is bounded too, comes up.
    limits = Limits(**standing(scope, time=timedelta(minutes=3)))
    await here.submit(run_spec(task("two"), name="next", project="shop", limits=limits))
    await leader.run()
    here.clock.move(timedelta(minutes=1))
    assert calls(here, "two", 0) is None
    here.clock.move(timedelta(minutes=1))
    assert (calls(here, "two", 0) or "").endswith("is spent (0:03:00 of 0:03:00)")


@pytest.mark.parametrize("scope", STANDING)
async def test_the_working_time_of_a_period_is_known_to_the_next_leader(here: SmallWorld, scope: Scope) -> None:
    here.clock.move_to(here.clock.now().replace(hour=23, minute=0, second=0, microsecond=0))
    leader = await bounded(here, "one", "two", **standing(scope, Period.DAY, time=HOURS))
    # An hour of each today, and half an hour of each tomorrow.
    here.clock.move(timedelta(minutes=90))
    await leader.run()
    here.process("one").exit(1)
    await leader.run()
    await leader.die()
    successor = await here.lead()
    await successor.run()
    here.clock.move(timedelta(minutes=59))
    assert calls(here, "two", 0) is None
    here.clock.move(timedelta(minutes=1))
    assert (calls(here, "two", 0) or "").endswith("is spent (2:00:00 of 2:00:00)")


@pytest.mark.parametrize("scope", [Scope.RUN, *STANDING])
async def test_time_stands_still_for_an_agent_that_a_person_has_frozen(here: SmallWorld, scope: Scope) -> None:
    bound = timedelta(minutes=3)
    limits = {"budget": Allowance(time=bound)} if scope is Scope.RUN else standing(scope, time=bound)
    leader = await bounded(here, "api", **limits)
    here.clock.move(timedelta(minutes=1))
    (agent,) = await here.store.read(lambda view: view.agents.live())
    for kind in (Freeze, Thaw):
        await here.ask(kind(run_id=agent.run_id, agent_id=agent.agent_id))
        await leader.run()
        here.clock.move(timedelta(minutes=1))
    assert calls(here, "api", 0) is None, "two minutes, and one of rest"
    await here.ask(Freeze(run_id=agent.run_id, agent_id=agent.agent_id))
    await leader.run()
    here.clock.move(timedelta(hours=1))
    assert calls(here, "api", 0) is None
    # It ends as it stands.
    here.process().exit(1)
    await leader.run()
    await leader.die()
    successor = await here.lead()
    await here.ask(Retry(run_id=agent.run_id, new_run_id=RunId("r-again")))
    await successor.run()
    assert calls(here, "api", 0) is None
    here.clock.move(timedelta(minutes=3 if scope is Scope.RUN else 1))
    assert (calls(here, "api", 0) or "").endswith("is spent (0:03:00 of 0:03:00)")


@pytest.mark.parametrize("scope", STANDING)
async def test_runs_share_a_standing_budget(here: SmallWorld, scope: Scope) -> None:
    standing = (StandingBudget(scope=scope, allowance=Allowance(usd=1.0)),)
    leader = await bounded(here, "one")
    calls(here, "one", 0.75)
    # It is not written down yet when the next run, which is bounded, comes up.
    await here.submit(run_spec(task("two"), name="next", project="shop", limits=Limits(standing=standing)))
    await leader.run()
    assert calls(here, "two", 0.25) is None
    assert (calls(here, "two", 0.1) or "").endswith("is spent ($1.00 of $1.00)")
    assert calls(here, "one", 0.1) is None, "it was submitted without a bound"


async def test_a_day_begins_at_nothing(here: SmallWorld) -> None:
    standing = (StandingBudget(scope=Scope.DAY, allowance=Allowance(usd=1.0), per=Period.DAY),)
    leader = await bounded(here, "one", standing=standing)
    assert calls(here, "one", 1.0) is None
    assert calls(here, "one", 1.0) == "the budget of the day is spent ($1.00 of $1.00)"
    await leader.run()
    here.clock.move(timedelta(days=1))
    await leader.run()
    assert calls(here, "one", 0.5) is None
    assert calls(here, "one", 0.5) is None
    assert calls(here, "one", 0.5) == "the budget of the day is spent ($1.00 of $1.00)"


async def test_another_leader_and_another_project_know_what_is_theirs(here: SmallWorld) -> None:
    standing = (StandingBudget(scope=Scope.PROJECT, allowance=Allowance(usd=1.0)),)
    leader = await bounded(here, "one", project="other", standing=standing)
    assert calls(here, "one", 1.0) is None
    await leader.run()
    await leader.die()
    successor = await here.lead()
    await here.submit(run_spec(task("two"), name="next", project="shop", limits=Limits(standing=standing)))
    await successor.run()
    assert calls(here, "two", 0.5) is None
    assert calls(here, "one", 0.5) == "the budget of project other is spent ($1.00 of $1.00)"


async def test_four_fifths_of_a_budget_are_warned_of_once(here: SmallWorld) -> None:
    leader = await bounded(here, "api", budget=Allowance(usd=1.0))
    for _ in range(3):
        calls(here, "api", 0.4)
        await leader.run()
    (warned,) = await here.events(BudgetWarned)
    assert (warned.budget, warned.resource, warned.limit, warned.spent) == ("run shop", "usd", 1.0, 0.8)
    (call, *_) = await here.events(ModelCalled)
    assert call.cost_usd == 0.4


async def test_the_next_leader_does_not_warn_again(here: SmallWorld) -> None:
    bounds = standing(Scope.DAY, Period.DAY, usd=2.0)
    leader = await bounded(here, "api", budget=Allowance(usd=1.0), **bounds)
    calls(here, "api", 0.9)
    await leader.run()
    for _ in range(2):
        await leader.die()
        leader = await here.lead()
        await leader.run()
        calls(here, "api", 0.01)
        await leader.run()
    assert [(warned.budget, warned.spent) for warned in await here.events(BudgetWarned)] == [("run shop", 0.9)]
    # Of another day, and another limit, it does.
    calls(here, "api", 0.8)
    await leader.run()
    assert [warned.budget for warned in await here.events(BudgetWarned)] == ["run shop", "the day"]


# --- Calls that are on their way ---


def begun(here: SmallWorld, name: str, guess: float) -> Flight:
    flight = here.gateway.begin(here.process(name).token, guess=guess)
    assert isinstance(flight, Flight), flight
    return flight


async def test_what_calls_on_their_way_may_use_is_kept_back(here: SmallWorld) -> None:
    await bounded(here, "api", "ui", budget=Allowance(usd=1.0))
    first = begun(here, "api", 0.6)
    assert here.gateway.begin(here.process("ui").token, guess=0.6) == HELD
    here.gateway.end(first, usd=0.3)
    second = begun(here, "ui", 0.6)
    assert here.gateway.begin(here.process("api").token, guess=0.6) == HELD
    here.gateway.end(second, usd=0.7)
    assert calls(here, "api", 0.1) == "the budget of run shop is spent ($1.00 of $1.00)"


async def test_calls_that_fit_go_out_side_by_side(here: SmallWorld) -> None:
    await bounded(here, "api", "ui", budget=Allowance(usd=1.0, turns=3))
    flights = [begun(here, name, 0.3) for name in ("api", "ui", "api")]
    assert here.gateway.begin(here.process("ui").token, guess=0.01) == HELD, "a fourth turn"
    for flight in flights:
        here.gateway.end(flight, usd=0.1)
    assert calls(here, "ui", 0) == "the budget of run shop is spent (3 of 3 model calls)"


async def test_one_that_may_use_more_than_is_left_goes_out_alone(here: SmallWorld) -> None:
    await bounded(here, "api", "ui", budget=Allowance(usd=1.0))
    flight = begun(here, "api", 50.0)
    assert here.gateway.begin(here.process("ui").token) == HELD
    here.gateway.end(flight, usd=0.5)
    assert calls(here, "ui", 0.1) is None


async def test_two_budgets_that_run_out_together_are_passed_by_no_call(here: SmallWorld) -> None:
    """As long as calls cost what was guessed, however many there are at once."""
    names = [f"t{number}" for number in range(4)]
    here.set(slots=10)
    limits = Limits(budget=Allowance(usd=1.0), standing=(StandingBudget(scope=Scope.DAY, allowance=Allowance(turns=10)),))
    await here.submit(run_spec(*(task(name) for name in names), name="shop", limits=limits))
    leader = await here.lead()
    await leader.run()
    flights: list[Flight] = []
    for _ in range(20):
        for name in names:
            flight = here.gateway.begin(here.process(name).token, guess=0.1)
            flights += [flight] if isinstance(flight, Flight) else []
        while flights:
            here.gateway.end(flights.pop(), usd=0.1)
    await leader.run()
    (overview,) = await here.store.read(lambda view: view.runs.overviews())
    assert (round(overview.spend.cost_usd, 6), overview.spend.calls) == (1.0, 10)


async def test_who_waits_for_room_hears_of_it(here: SmallWorld) -> None:
    leader = await bounded(here, "api", budget=Allowance(usd=1.0))
    flight = begun(here, "api", 1.0)
    waiting = asyncio.ensure_future(leader.meter.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    here.gateway.end(flight, usd=0.1)
    await asyncio.wait_for(waiting, 5)


async def test_a_call_goes_out_when_it_is_written_down(here: SmallWorld) -> None:
    leader = await bounded(here, "api")
    flight = begun(here, "api", 0.25)
    waiting = asyncio.ensure_future(leader.meter.kept(flight.call.call_id))
    await asyncio.sleep(0)
    assert not waiting.done()
    await leader.run()
    await asyncio.wait_for(waiting, 5)
    (kept,) = await here.store.read(lambda view: view.ledger.on_their_way())
    assert (kept.call_id, kept.cost_usd, kept.account_id != "") == (flight.call.call_id, 0.25, True)


async def test_a_call_on_its_way_when_the_leader_died_is_booked_once_as_it_was_guessed(here: SmallWorld) -> None:
    leader = await bounded(here, "api", "ui", budget=Allowance(usd=1.0))
    lost = begun(here, "api", 0.75)
    ended = begun(here, "ui", 0.1)
    here.gateway.end(ended, usd=0.05)
    await leader.run()
    await leader.die()
    for _ in range(2):
        successor = await here.lead()
        await successor.run()
        await successor.die()
    last = await here.lead()
    await last.run()
    here.gateway.end(lost, usd=9.0)
    (overview,) = await here.store.read(lambda view: view.runs.overviews())
    assert (overview.spend.cost_usd, overview.spend.calls) == (0.8, 2)
    assert [(event.cost_usd, event.error) for event in await here.events(ModelCalled)] == [(0.05, ""), (0.75, "lost")]
    assert calls(here, "ui", 0.2) is None
    assert calls(here, "ui", 0.2) == "the budget of run shop is spent ($1.00 of $1.00)"


async def test_what_an_agent_that_is_gone_has_asked_for_keeps_nobody_waiting(here: SmallWorld) -> None:
    leader = await bounded(here, "api", "ui", budget=Allowance(usd=1.0))
    begun(here, "api", 1.0)
    here.process("api").exit(1)
    await leader.run()
    assert calls(here, "ui", 0.5) is None


async def test_a_call_whose_budget_was_used_up_before_it_went_out_is_refused_after_all(here: SmallWorld) -> None:
    leader = await bounded(here, "api", "ui", budget=Allowance(usd=1.0))
    first, second = begun(here, "api", 0.1), begun(here, "ui", 0.1)
    await leader.run()
    here.gateway.end(first, usd=1.5)
    assert here.gateway.goes_out(second) == "the budget of run shop is spent ($1.50 of $1.00)"
    await leader.run()
    assert await here.store.read(lambda view: list(view.ledger.on_their_way())) == []
    assert [event.cost_usd for event in await here.events(ModelCalled)] == [1.5]
    assert [event.budget for event in await here.events(BudgetReached)] == ["run shop"]


async def test_what_a_call_that_is_refused_after_all_kept_back_is_free_at_once(here: SmallWorld) -> None:
    specs = [task("api", budget=Allowance(usd=0.5)), task("ui")]
    here.set(slots=10)
    await here.submit(run_spec(*specs, name="shop", limits=Limits(budget=Allowance(usd=1.0))))
    leader = await here.lead()
    await leader.run()
    small, large = begun(here, "api", 0.1), begun(here, "api", 0.3)
    here.gateway.end(small, usd=0.6)
    assert here.gateway.begin(here.process("ui").token, guess=0.3) == HELD
    assert (here.gateway.goes_out(large) or "").startswith("the budget of task api is spent")
    begun(here, "ui", 0.3)


async def test_a_call_of_an_agent_that_is_gone_does_not_go_out(here: SmallWorld) -> None:
    leader = await bounded(here, "api")
    flight = begun(here, "api", 0.1)
    here.process().exit(1)
    await leader.settle()
    assert here.gateway.goes_out(flight) == "this agent has been stopped"
