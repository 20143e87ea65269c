"""What every store owes about transactions, the event log and requests; the tables are in ``tables`` and ``queries``."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from kapelle.core.agent import ProcessRef
from kapelle.core.errors import LeadLost, StoreFailed
from kapelle.core.events import KINDS, Event, RunPaused, RunResumed, RunSubmitted
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AgentId, RunId
from kapelle.core.isolation_events import LimitMet
from kapelle.core.leading import Leadership
from kapelle.core.ports import Clock
from kapelle.core.requests import Request, Settlement, Submit, Unreadable
from kapelle.core.run import Run
from kapelle.core.store import Edge, Store, Tx, View
from kapelle.core.task import Task, TaskState
from kapelle.testing.conformance.samples import NOON, StillClock, a_request, a_run, a_task, some

T = TypeVar("T")

SOMEBODY = ProcessRef(boot_id="boot-1", pid=4711, started="12345")


class Stop(Exception):
    """What a test raises in the middle of a transaction."""


@frozen
class Led:
    """A store, and the lead in it."""

    store: Store
    leadership: Leadership
    term: int

    async def do(self, work: Callable[[Tx], T]) -> T:
        """Run *work* in a transaction of the present term."""
        return await self.store.transact(work, term=self.term)

    async def read(self, work: Callable[[View], T]) -> T:
        """Run *work* on what is committed."""
        return await self.store.read(work)

    async def events(self) -> list[Event]:
        """Return the events of the whole log."""
        return [entry.event for entry in await self.store.read(lambda view: view.events(limit=100_000))]


class StoreTests:
    """What the tests of a store begin from: a new store, led by this process."""

    async def open(self, folder: Path, clock: Clock) -> tuple[Store, Leadership]:
        """Open the store in *folder*, as one more process would; a new one when there is none."""
        raise NotImplementedError

    @pytest.fixture
    async def led(self, tmp_path: Path) -> AsyncIterator[Led]:
        """Give a new store and its lead."""
        store, leadership = await self.open(tmp_path, StillClock())
        term = await leadership.take(SOMEBODY, NOON)
        assert term is not None
        yield Led(store=store, leadership=leadership, term=term)
        await leadership.give_up(term)
        await store.close()


class TransactionSuite(StoreTests):
    """All or nothing, one after the other, and only by who leads."""

    async def test_a_transaction_returns_what_its_work_returned(self, led: Led) -> None:
        """The answer comes through."""
        assert await led.do(lambda _: "answer") == "answer"

    async def test_a_transaction_knows_its_time_and_term(self, led: Led) -> None:
        """The time is the clock's."""
        assert await led.do(lambda tx: (tx.now, tx.term)) == (NOON, led.term)

    async def test_a_transaction_sees_what_it_wrote(self, led: Led) -> None:
        """Reads on a transaction are not those of before it."""
        run = a_run()

        def work(tx: Tx) -> Run | None:
            tx.runs.add(run)
            return tx.runs.get(run.run_id)

        assert await led.do(work) == run

    async def test_the_last_of_several_writes_of_a_row_counts(self, led: Led) -> None:
        """Whichever way it is read, within the transaction and after it."""
        run = a_run()
        first, second = a_task(run, name="first"), a_task(run, name="second", unmet=1)
        needs = Edge(task_id=second.task_id, need_id=first.task_id)
        done = replace(first, state=TaskState.RUNNING)

        def work(tx: Tx) -> None:
            tx.runs.add(run)
            tx.tasks.add([first, second], [needs])
            for state in (TaskState.ASSIGNED, TaskState.RUNNING):
                tx.tasks.put(replace(first, state=state))
            assert tx.tasks.get(first.task_id) == done
            assert tx.tasks.needs(second.task_id) == [done]
            assert tx.tasks.in_state(TaskState.RUNNING) == [done]
            assert tx.tasks.in_state(TaskState.ASSIGNED) == []
            tx.tasks.put(replace(second, unmet=0))
            assert tx.tasks.needed_by(first.task_id) == [replace(second, unmet=0)]
            assert tx.tasks.due(tx.now, 10) == [replace(second, unmet=0)]
            assert tx.tasks.of_run(run.run_id) == [done, replace(second, unmet=0)]
            tx.runs.put(replace(run, unfinished=7))
            assert [entry.run.unfinished for entry in tx.runs.overviews()] == [7]

        await led.do(work)
        assert await led.read(lambda view: view.tasks.of_run(run.run_id)) == [done, replace(second, unmet=0)]

    async def test_a_transaction_sees_its_own_events_in_order(self, led: Led) -> None:
        """Their numbers are the ones they keep."""

        def work(tx: Tx) -> int:
            tx.log(RunPaused(), RunResumed())
            assert [entry.event for entry in tx.events()] == [RunPaused(), RunResumed()]
            return tx.last_seq()

        assert await led.do(work) == 2
        assert await led.events() == [RunPaused(), RunResumed()]

    async def test_work_that_waits_together_is_done_in_order(self, led: Led) -> None:
        """Each piece sees what those before it wrote, whoever ordered it."""
        run = a_run(unfinished=0)

        def count(tx: Tx) -> int:
            if (found := tx.runs.get(run.run_id)) is None:
                tx.runs.add(found := run)
            tx.runs.put(replace(found, unfinished=found.unfinished + 1))
            return found.unfinished

        async with asyncio.TaskGroup() as group:
            orders = [group.create_task(led.do(count)) for _ in range(5)]
        assert [order.result() for order in orders] == [0, 1, 2, 3, 4]

    async def test_of_work_that_waits_together_what_fails_undoes_only_itself(self, led: Led) -> None:
        """With all that it wrote."""

        def fails(tx: Tx) -> None:
            tx.log(RunSubmitted(name="lost", tasks=0))
            raise Stop

        async def ordered() -> None:
            with pytest.raises(Stop):
                await led.do(fails)

        async with asyncio.TaskGroup() as group:
            group.create_task(led.do(lambda tx: tx.log(RunPaused())))
            group.create_task(ordered())
            group.create_task(led.do(lambda tx: tx.log(RunResumed())))
        assert await led.events() == [RunPaused(), RunResumed()]

    async def test_what_was_committed_is_read_by_others(self, led: Led) -> None:
        """A commit counts when ``transact`` returns."""
        run = a_run()
        await led.do(lambda tx: tx.runs.add(run))
        assert await led.read(lambda view: view.runs.get(run.run_id)) == run

    async def test_the_newest_events_of_one_kind_about_a_task_are_found(self, led: Led) -> None:
        """In order, and no more of them than asked for."""
        about, other = (a_task(a_run(), name=name) for name in ("about", "other"))

        def met(task: Task, reason: str) -> LimitMet:
            return LimitMet(run_id=task.run_id, task_id=task.task_id, agent_id=AgentId("g-1"), reason=reason)

        await led.do(lambda tx: tx.log(met(about, "1"), met(other, "2"), RunPaused(), met(about, "3"), met(about, "4")))

        async def found(kind: str, limit: int = 1000) -> list[str]:
            entries = await led.read(lambda view: view.events_of_task(about.run_id, about.task_id, kind, limit))
            return [entry.event.reason for entry in entries if isinstance(entry.event, LimitMet)]

        assert await found("limit.met") == ["1", "3", "4"]
        assert await found("limit.met", 2) == ["3", "4"]
        assert await found("network.denied") == []

    async def test_an_error_undoes_everything_with_its_events(self, led: Led) -> None:
        """Whatever is raised comes out as it is, and nothing stays."""
        run = a_run()

        def work(tx: Tx) -> None:
            tx.runs.add(run)
            tx.log(RunSubmitted(run_id=run.run_id, name="lost", tasks=0))
            raise Stop

        with pytest.raises(Stop):
            await led.do(work)
        assert await led.read(lambda view: view.runs.get(run.run_id)) is None
        assert await led.events() == []

    async def test_a_transaction_after_one_that_failed_goes_through(self, led: Led) -> None:
        """An error leaves no transaction open, and no number is lost with it."""

        def work(tx: Tx) -> None:
            tx.log(RunPaused())
            raise Stop

        with pytest.raises(Stop):
            await led.do(work)
        await led.do(lambda tx: tx.log(RunResumed()))
        assert [entry.seq for entry in await led.read(lambda view: view.events())] == [1]

    @pytest.mark.parametrize("off", [-1, 1])
    async def test_another_term_writes_nothing(self, led: Led, off: int) -> None:
        """Neither one of the past nor one that nobody has: the work is not even begun."""
        begun: list[bool] = []

        def work(tx: Tx) -> None:
            begun.append(True)
            tx.log(RunPaused())

        with pytest.raises(LeadLost):
            await led.store.transact(work, term=led.term + off)
        assert begun == []
        assert await led.events() == []

    async def test_nobody_writes_before_somebody_leads(self, tmp_path: Path) -> None:
        """A new store has no term at all."""
        store, _ = await self.open(tmp_path / "new", StillClock())
        for term in (0, 1):
            with pytest.raises(LeadLost):
                await store.transact(lambda tx: tx.log(RunPaused()), term=term)
        assert await store.read(lambda view: view.last_seq()) == 0
        await store.close()

    async def test_work_is_done_in_the_order_of_the_calls(self, led: Led) -> None:
        """Also when nobody waits for one before asking for the next."""
        done: list[int] = []
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(led.do(lambda _, number=number: done.append(number)))
        assert done == list(range(50))

    async def test_transactions_do_not_lose_one_anothers_writes(self, led: Led) -> None:
        """Many that read, count and write come to the right sum."""
        run = a_run(unfinished=0)
        await led.do(lambda tx: tx.runs.add(run))

        def count(tx: Tx) -> None:
            found = tx.runs.get(run.run_id)
            assert found is not None
            tx.runs.put(replace(found, unfinished=found.unfinished + 1))

        async with asyncio.TaskGroup() as group:
            for _ in range(30):
                group.create_task(led.do(count))
        found = await led.read(lambda view: view.runs.get(run.run_id))
        assert found is not None
        assert found.unfinished == 30

    async def test_readers_see_state_and_events_together(self, led: Led) -> None:
        """There is never a run without its event, nor an event without its run."""

        def write(tx: Tx) -> None:
            run = a_run()
            tx.runs.add(run)
            tx.log(RunSubmitted(run_id=run.run_id, name="one", tasks=0))

        seen: list[tuple[int, int]] = []

        async def look() -> None:
            seen.append(await led.read(lambda view: (len(view.runs.open()), view.last_seq())))

        async with asyncio.TaskGroup() as group:
            for _ in range(30):
                group.create_task(led.do(write))
                group.create_task(look())
        assert len(seen) == 30
        assert all(runs == events for runs, events in seen)

    async def test_a_store_that_is_opened_again_holds_the_same(self, tmp_path: Path) -> None:
        """State, events, requests, the store's own id, and its term: nobody else has led."""
        run, request = a_run(), a_request()
        store, leadership = await self.open(tmp_path / "kept", StillClock())
        term = await leadership.take(SOMEBODY, NOON)
        assert term is not None

        def work(tx: Tx) -> None:
            tx.runs.add(run)
            tx.log(RunSubmitted(run_id=run.run_id, name="kept", tasks=0))

        await store.ask([request])
        await store.transact(work, term=term)
        before = await store.read(lambda view: list(view.events()))
        await store.close()
        again, _ = await self.open(tmp_path / "kept", StillClock())
        assert again.store_id == store.store_id
        assert await again.read(lambda view: view.runs.get(run.run_id)) == run
        assert await again.read(lambda view: list(view.events())) == before
        assert await again.read(lambda view: list(view.requests.open())) == [request]
        await again.transact(lambda tx: tx.log(RunPaused()), term=term)
        assert await again.read(lambda view: view.last_seq()) == 2
        await again.close()
        with suppress(StoreFailed):
            await leadership.give_up(term)

    async def test_every_store_has_an_id_of_its_own(self, led: Led, tmp_path: Path) -> None:
        """It names the store in everything that is left in the world."""
        other, _ = await self.open(tmp_path / "other", StillClock())
        assert led.store.store_id
        assert other.store_id not in {"", led.store.store_id}
        await other.close()

    async def test_closing_twice_is_closing_once(self, tmp_path: Path) -> None:
        """Whoever ends in a hurry may close what is closed."""
        store, _ = await self.open(tmp_path / "closed", StillClock())
        await store.close()
        await store.close()

    async def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        """With an error of our own."""
        store, _ = await self.open(tmp_path / "closed", StillClock())
        await store.close()
        with pytest.raises(StoreFailed):
            await store.read(lambda view: view.last_seq())
        with pytest.raises(StoreFailed):
            await store.ask([a_request()])


class EventSuite(StoreTests):
    """The log: complete, in order, for ever."""

    async def test_an_empty_log_has_no_newest_event(self, led: Led) -> None:
        """Sequence numbers begin after zero."""
        assert await led.read(lambda view: (view.last_seq(), list(view.events()))) == (0, [])

    async def test_events_are_numbered_without_gaps_in_the_order_they_were_logged(self, led: Led) -> None:
        """Across transactions, those that fail among them."""

        def fail(tx: Tx) -> None:
            tx.log(RunPaused(principal="nobody"))
            raise Stop

        for number in range(10):
            await led.do(lambda tx, number=number: tx.log(RunPaused(principal=f"{number}"), RunResumed(principal=f"{number}")))
            with suppress(Stop):
                await led.do(fail)
        entries = await led.read(lambda view: view.events())
        assert [entry.seq for entry in entries] == list(range(1, 21))
        expected = [kind(principal=f"{number}") for number in range(10) for kind in (RunPaused, RunResumed)]
        assert [entry.event for entry in entries] == expected
        assert await led.read(lambda view: view.last_seq()) == 20

    async def test_an_event_bears_time_and_term(self, led: Led) -> None:
        """Those of the transaction that logged it."""
        await led.do(lambda tx: tx.log(RunPaused()))
        (entry,) = await led.read(lambda view: view.events())
        assert (entry.at, entry.term) == (NOON, led.term)

    async def test_every_kind_of_event_comes_back_with_all_its_fields(self, led: Led) -> None:
        """Whatever they hold."""
        events = [event for kind in KINDS.values() for event in some(kind, examples=10)]
        await led.do(lambda tx: tx.log(*events))
        assert await led.events() == events

    async def test_events_are_read_from_where_a_reader_left_off(self, led: Led) -> None:
        """After a number, and not more than asked for."""
        await led.do(lambda tx: tx.log(*[RunPaused(principal=f"{number}") for number in range(1, 10)]))
        entries = await led.read(lambda view: view.events(after=3, limit=2))
        assert [(entry.seq, entry.event) for entry in entries] == [
            (4, RunPaused(principal="4")),
            (5, RunPaused(principal="5")),
        ]
        assert await led.read(lambda view: list(view.events(after=9))) == []

    async def test_the_events_of_one_run_are_read_alone(self, led: Led) -> None:
        """With the numbers that they have in the whole log."""
        mine, other = RunId("r-mine"), RunId("r-other")
        await led.do(
            lambda tx: tx.log(RunPaused(run_id=mine), RunPaused(run_id=other), RunResumed(run_id=mine), RunResumed(run_id=mine))
        )
        entries = await led.read(lambda view: view.events(after=1, run_id=mine, limit=1))
        assert [(entry.seq, entry.event) for entry in entries] == [(3, RunResumed(run_id=mine))]


class RequestSuite(StoreTests):
    """What anybody may ask."""

    async def test_a_request_comes_back_as_it_was_asked(self, led: Led) -> None:
        """With every kind of body."""
        given = [request for request in some(Request, examples=60) if not isinstance(request.body, Unreadable)]
        asked = {request.request_id: replace(request, settled_at=None, refusal=None) for request in given}
        await led.store.ask(asked.values())
        found = await led.read(lambda view: {request_id: view.requests.get(request_id) for request_id in asked})
        assert found == asked

    async def test_asking_twice_is_asking_once(self, led: Led) -> None:
        """At one time or at two; the first one stands."""
        request = a_request()
        await led.store.ask([request, request])
        await led.store.ask([replace(request, principal="somebody else")])
        assert await led.read(lambda view: view.requests.open()) == [request]

    async def test_a_leader_may_append_a_request_and_settle_it_at_once(self, led: Led) -> None:
        """Its own, in one transaction; once only, however often it is appended."""
        request = a_request()

        def work(tx: Tx) -> None:
            tx.requests.add(request)
            tx.requests.add(request)
            assert tx.requests.open() == [request]
            tx.requests.settle(request.request_id, tx.now, None)

        await led.do(work)
        await led.do(lambda tx: tx.requests.add(request))
        assert await led.read(lambda view: list(view.requests.open())) == []

    async def test_runs_are_added_with_what_was_asked_for_each(self, led: Led, tmp_path: Path) -> None:
        """In one transaction with their requests, in whatever order; a store that is opened anew reads the same."""
        runs = [a_run(), a_run(), a_run()]
        runs = [replace(run, spec=replace(run.spec, name=f"run {number}")) for number, run in enumerate(runs)]

        def work(tx: Tx) -> None:
            for run in runs:
                tx.requests.add(a_request(body=Submit(run_id=run.run_id, spec=run.spec)))
            for run in (runs[2], runs[0], runs[1]):
                tx.runs.add(run)

        await led.do(work)
        again, _ = await self.open(tmp_path, StillClock())
        assert await again.read(lambda view: [view.runs.get(run.run_id) for run in runs]) == runs
        asked = await again.read(lambda view: [request.body for request in view.requests.open()])
        assert asked == [Submit(run_id=run.run_id, spec=run.spec) for run in runs]
        await again.close()

    async def test_what_is_settled_stays_settled_when_it_is_asked_again(self, led: Led) -> None:
        """Whoever lost the answer may ask again without harm."""
        request = a_request()
        await led.store.ask([request])
        await led.do(lambda tx: tx.requests.settle(request.request_id, tx.now, None))
        await led.store.ask([request])
        assert await led.read(lambda view: list(view.requests.open())) == []

    async def test_anybody_may_ask_while_nobody_leads(self, tmp_path: Path) -> None:
        """No term is needed for it."""
        store, _ = await self.open(tmp_path / "new", StillClock())
        request = a_request()
        await store.ask([request])
        assert await store.read(lambda view: view.requests.get(request.request_id)) == request
        await store.close()

    async def test_open_requests_are_read_the_oldest_first(self, led: Led) -> None:
        """In the order in which they came, whatever their clocks said."""
        requests = [a_request(asked_at=NOON - timedelta(seconds=number)) for number in range(5)]
        for request in requests:
            await led.store.ask([request])
        assert await led.read(lambda view: view.requests.open()) == requests
        assert await led.read(lambda view: view.requests.open(limit=2)) == requests[:2]

    @pytest.mark.parametrize("refusal", [None, "there is no such run"])
    async def test_a_settled_request_is_not_open_and_says_what_became_of_it(self, led: Led, refusal: str | None) -> None:
        """Done or refused."""
        request, other = a_request(), a_request()
        await led.store.ask([request, other])
        await led.do(lambda tx: tx.requests.settle(request.request_id, tx.now, refusal))
        assert await led.read(lambda view: view.requests.open()) == [other]
        expected = replace(request, settled_at=NOON, refusal=refusal)
        assert await led.read(lambda view: view.requests.get(request.request_id)) == expected
        said = await led.read(lambda view: [view.requests.settlement(each.request_id) for each in (request, other)])
        assert said == [Settlement(at=NOON, refusal=refusal), Settlement()]

    async def test_a_request_that_nobody_made_is_not_there(self, led: Led) -> None:
        """None, and no error."""
        assert await led.read(lambda view: view.requests.get(a_request().request_id)) is None
        assert await led.read(lambda view: view.requests.settlement(a_request().request_id)) is None
