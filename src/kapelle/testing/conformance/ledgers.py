"""What a store must keep of model calls."""

from datetime import timedelta
from typing import Any

from kapelle.core.account import account_of
from kapelle.core.attempt import Attempt
from kapelle.core.budget import Spend
from kapelle.core.calls import ModelCall
from kapelle.core.events import BudgetWarned
from kapelle.core.frozen import replace
from kapelle.core.gateway import Upstream
from kapelle.core.ids import AccountId, AgentId
from kapelle.core.store import Tx
from kapelle.testing.conformance.samples import NOON, a_call, a_run, a_task, an_agent, an_attempt, new_id, some
from kapelle.testing.conformance.transactions import Led, StoreTests


class LedgerSuite(StoreTests):
    """What was spent, to the last token."""

    async def test_what_each_task_spent_is_the_sum_of_its_calls(self, led: Led) -> None:
        """In every kind of token, and in money."""
        run, other = a_run(), a_run()
        first, second = an_attempt(a_task(run)), an_attempt(a_task(run))
        elsewhere = an_attempt(a_task(other))
        calls = [replace(call, usage=replace(call.usage, input_tokens=7)) for call in some(ModelCall)]
        mine = [_belonging(call, first) for call in calls]
        rest = [_belonging(call, second) for call in calls[:3]]

        def work(tx: Tx) -> None:
            tx.ledger.add([*mine, *rest, a_call(elsewhere)], NOON)

        await led.do(work)
        spent = await led.read(lambda view: view.ledger.by_task(run.run_id))
        assert set(spent) == {first.task_id, second.task_id}
        _assert_spent(spent[first.task_id], mine)
        _assert_spent(spent[second.task_id], rest)

    async def test_a_call_is_booked_once(self, led: Led) -> None:
        """However often it is told of, at one time or at two."""
        run = a_run()
        call = replace(a_call(an_attempt(a_task(run))), cost_usd=0.25)
        await led.do(lambda tx: tx.ledger.add([call, call], NOON))
        await led.do(lambda tx: tx.ledger.add([replace(call, cost_usd=9.0)], NOON))
        spent = await led.read(lambda view: view.ledger.by_task(run.run_id))
        assert spent == {call.task_id: Spend(usage=call.usage, cost_usd=0.25, calls=1)}

    async def test_booking_nothing_is_no_error(self, led: Led) -> None:
        """A batch may be empty."""
        run = a_run()
        await led.do(lambda tx: tx.ledger.add([], NOON))
        assert await led.read(lambda view: view.ledger.by_task(run.run_id)) == {}

    async def test_the_spend_of_open_runs_is_told_run_by_run(self, led: Led) -> None:
        """What has ended needs no watching any more."""
        first, second, ended = a_run(), a_run(), a_run(ended_at=NOON)
        calls = [replace(a_call(an_attempt(a_task(run))), cost_usd=0.5) for run in (first, first, second, ended)]

        def work(tx: Tx) -> None:
            for run in (first, second, ended):
                tx.runs.add(run)
            tx.ledger.add(calls, NOON)

        await led.do(work)
        spent = await led.read(lambda view: view.ledger.by_run())
        assert {run_id: (spend.cost_usd, spend.calls) for run_id, spend in spent.items()} == {
            first.run_id: (1.0, 2),
            second.run_id: (0.5, 1),
        }

    async def test_what_each_agent_of_a_run_has_spent_is_summed_up(self, led: Led) -> None:
        """Also of one task; nothing of other runs."""
        attempt = an_attempt(a_task(a_run()))
        ours = [
            replace(a_call(attempt), agent_id=AgentId(name), cost_usd=usd)
            for name, usd in (("g-a", 1.0), ("g-b", 2.0), ("g-a", 4.0))
        ]
        await led.do(lambda tx: tx.ledger.add([*ours, a_call(an_attempt(a_task(a_run())))], NOON))
        spent = await led.read(lambda view: view.agents.spent(attempt.run_id))
        assert {name: (spend.cost_usd, spend.calls) for name, spend in spent.items()} == {"g-a": (5.0, 2), "g-b": (2.0, 1)}

    async def test_a_call_on_its_way_counts_when_it_has_ended(self, led: Led) -> None:
        """Until then it is known, whatever becomes of whoever let it through; afterwards it is over."""
        run = a_run()
        guessed = replace(a_call(an_attempt(a_task(run))), cost_usd=0.25, settled=False)
        other = replace(a_call(an_attempt(a_task(run))), settled=False)
        await led.do(lambda tx: tx.runs.add(run))
        await led.do(lambda tx: tx.ledger.keep([guessed], NOON))
        await led.do(lambda tx: tx.ledger.keep([guessed, other], NOON + timedelta(seconds=1)))
        found = await led.read(lambda view: view.ledger.on_their_way())
        assert [call.call_id for call in found] == [guessed.call_id, other.call_id]
        assert (found[0].cost_usd, found[0].usage, found[0].settled) == (0.25, guessed.usage, False)
        assert await led.read(lambda view: view.ledger.by_run()) == {}
        assert await led.read(lambda view: view.ledger.by_task(run.run_id)) == {}
        assert await led.read(lambda view: view.ledger.total()) == Spend()
        for cost in (0.75, 9.0):
            ended = replace(guessed, cost_usd=cost, settled=True)
            await led.do(lambda tx, ended=ended: tx.ledger.add([ended], NOON))
        # Kept too late: it has ended already.
        await led.do(lambda tx: tx.ledger.keep([guessed], NOON))
        assert [call.call_id for call in await led.read(lambda view: view.ledger.on_their_way())] == [other.call_id]
        spent = await led.read(lambda view: view.ledger.by_task(run.run_id))
        assert spent == {guessed.task_id: Spend(usage=guessed.usage, cost_usd=0.75, calls=1)}

    async def test_a_call_that_did_not_go_out_is_forgotten(self, led: Led) -> None:
        """Whatever it would have cost; one that is booked cannot be."""
        run = a_run()
        calls = [replace(a_call(an_attempt(a_task(run))), settled=False) for _ in range(3)]
        dropped, kept, booked = calls
        await led.do(lambda tx: tx.ledger.keep(calls, NOON))
        await led.do(lambda tx: tx.ledger.add([replace(booked, settled=True)], NOON))
        for _ in range(2):
            await led.do(lambda tx: tx.ledger.drop([dropped.call_id, booked.call_id]))
        assert [call.call_id for call in await led.read(lambda view: view.ledger.on_their_way())] == [kept.call_id]
        assert set(await led.read(lambda view: view.ledger.by_task(run.run_id))) == {booked.task_id}

    async def test_spending_is_summed_up_by_project_and_account_and_since_a_time(self, led: Led) -> None:
        """Of runs that have ended, too."""

        def call(project: str, account: str, usd: float) -> ModelCall:
            made = a_call(an_attempt(a_task(a_run())))
            return replace(made, project=project, account_id=AccountId(account), cost_usd=usd)

        later = NOON + timedelta(days=1)
        await led.do(lambda tx: tx.ledger.add([call("shop", "key", 1.0), call("blog", "key", 2.0)], NOON))
        await led.do(lambda tx: tx.ledger.add([call("shop", "login", 4.0)], later))

        def usd(**which: Any) -> Any:
            return led.read(lambda view: view.ledger.total(**which).cost_usd)

        assert [await usd(), await usd(project="shop"), await usd(account_id=AccountId("key"))] == [7.0, 5.0, 3.0]
        assert [await usd(since=later), await usd(project="shop", since=later), await usd(project="blog", since=later)] == [
            4,
            4,
            0,
        ]

    async def test_for_how_long_agents_were_there_is_summed_up_by_task(self, led: Led) -> None:
        """Those that are live are not counted: nobody knows yet."""
        run = a_run()
        one, two = an_attempt(a_task(run)), an_attempt(a_task(run))
        ends = [(one, 60), (one, 30), (two, 10), (two, None)]

        def work(tx: Tx) -> None:
            for attempt, seconds in ends:
                stopped_at = None if seconds is None else NOON + timedelta(seconds=seconds)
                tx.agents.put(replace(an_agent(attempt), created_at=NOON, stopped_at=stopped_at))

        await led.do(work)
        worked = await led.read(lambda view: view.agents.worked(run.run_id))
        assert worked == {one.task_id: timedelta(seconds=90), two.task_id: timedelta(seconds=10)}

    async def test_it_is_known_of_which_budgets_it_was_warned(self, led: Led) -> None:
        """By what they add up under, in the order of the log; of those of an earlier version, which did not say it, nothing."""

        def warned(key: str, limit: float) -> BudgetWarned:
            return BudgetWarned(run_id=None, task_id=None, budget="b", resource="usd", limit=limit, spent=limit, key=key)

        of_run, of_day = f"run:{new_id('r')}", f"day:{new_id('d')}"
        await led.do(lambda tx: tx.log(warned(of_run, 2.5), warned("", 1.0), warned(of_day, 3.0)))
        found = await led.read(lambda view: [entry for entry in view.ledger.warned() if entry[0] in {of_run, of_day}])
        assert found == [(of_run, "usd", 2.5), (of_day, "usd", 3.0)]

    async def test_agents_that_stood_still_did_not_work(self, led: Led) -> None:
        """For as long as that was."""
        run = a_run()
        attempt = an_attempt(a_task(run))
        agent = replace(an_agent(attempt), created_at=NOON, rested=timedelta(seconds=20, microseconds=3))
        await led.do(lambda tx: tx.agents.put(replace(agent, stopped_at=NOON + timedelta(seconds=60))))
        worked = await led.read(lambda view: view.agents.worked(run.run_id))
        assert worked == {attempt.task_id: timedelta(seconds=40) - timedelta(microseconds=3)}
        assert (await led.read(lambda view: view.agents.newest(1, attempt.task_id)))[0].rested == agent.rested

    async def test_working_time_is_summed_up_by_project_and_account_and_since_a_time(self, led: Led) -> None:
        """Of runs that have ended, too; not of agents that are live."""
        shop, blog = (a_run(ended_at=NOON) for _ in range(2))
        shop = replace(shop, spec=replace(shop.spec, project="shop-of-time", upstream=Upstream(credential="env:OF_TIME")))
        blog = replace(blog, spec=replace(blog.spec, project="blog-of-time", upstream=Upstream(credential="env:OF_TIME")))
        # From when to when, and how long of that they rested.
        spans = [(shop, 0, 60, 10), (shop, 50, 100, 0), (shop, 0, 70, 30), (blog, 0, 70, 0), (blog, 0, None, 0)]

        def work(tx: Tx) -> None:
            for run in (shop, blog):
                tx.runs.add(run)
            for run, begin, end, rest in spans:
                agent = replace(an_agent(an_attempt(a_task(run))), created_at=NOON + timedelta(seconds=begin))
                stopped = None if end is None else NOON + timedelta(seconds=end)
                tx.agents.put(replace(agent, stopped_at=stopped, rested=timedelta(seconds=rest)))

        await led.do(work)

        async def worked(second: int | None = None, **which: Any) -> float:
            since = None if second is None else NOON + timedelta(seconds=second)
            return (await led.read(lambda view: view.agents.worked_since(since, **which))).total_seconds()

        account: dict[str, Any] = {"account_id": account_of(shop.spec.upstream).account_id}
        assert [await worked(project="shop-of-time"), await worked(project="blog-of-time")] == [50 + 50 + 40, 70]
        assert [await worked(**account), await worked(project="nobody's")] == [210, 0]
        # Of the third, 10 seconds are left, and it rested for longer.
        later = [await worked(60, project="shop-of-time"), await worked(60, **account), await worked(100, **account)]
        assert later == [40, 50, 0]
        assert await worked() >= 210


def _belonging(call: ModelCall, attempt: Attempt) -> ModelCall:
    ids = {"run_id": attempt.run_id, "task_id": attempt.task_id, "attempt_id": attempt.attempt_id}
    return replace(call, call_id=new_id("m"), cost_usd=0.125, **ids)


def _assert_spent(spend: Spend, calls: list[ModelCall]) -> None:
    expected = Spend()
    for call in calls:
        expected += Spend(usage=call.usage, cost_usd=call.cost_usd, calls=1)
    assert spend == expected
