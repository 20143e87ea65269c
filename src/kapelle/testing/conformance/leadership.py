"""The suite of leadership: one process at a time, known by its term."""

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from kapelle.core.errors import LeadLost
from kapelle.core.events import RunPaused, RunResumed
from kapelle.core.frozen import replace
from kapelle.core.ids import RequestId
from kapelle.core.leading import Lead, Leadership
from kapelle.core.store import Store
from kapelle.testing.conformance.samples import NOON, StillClock
from kapelle.testing.conformance.transactions import SOMEBODY, Led, StoreTests

OTHER = replace(SOMEBODY, pid=4712)
PATIENCE = 30
"""Seconds after which a process that should have answered is given up."""


class LeadershipSuite(StoreTests):
    """Everything that a leadership owes. Give it in ``open``, with its store, and a second process in ``program``."""

    def program(self) -> Sequence[str]:
        """Return the beginning of a command line that calls ``second.main`` with a function that opens such a store."""
        raise NotImplementedError

    @pytest.fixture
    async def other(self, led: Led, tmp_path: Path) -> AsyncIterator[tuple[Store, Leadership]]:
        """Give the same store as another process opens it."""
        assert led.term
        store, leadership = await self.open(tmp_path, StillClock())
        yield store, leadership
        await store.close()

    async def test_nobody_leads_a_new_store(self, tmp_path: Path) -> None:
        """Nor ever did."""
        store, leadership = await self.open(tmp_path / "new", StillClock())
        assert await leadership.holder() is None
        await store.close()

    async def test_everybody_can_see_who_leads(self, led: Led, other: tuple[Store, Leadership]) -> None:
        """Which process, since when it was last alive, and in which term."""
        expected = Lead(term=led.term, holder=SOMEBODY, renewed_at=NOON)
        assert await led.leadership.holder() == expected
        assert await other[1].holder() == expected

    async def test_one_process_leads_at_a_time(self, led: Led, other: tuple[Store, Leadership]) -> None:
        """Another one is told at once, and the leader's row stays as it is."""
        before = await led.leadership.holder()
        assert await other[1].take(OTHER, NOON + timedelta(hours=1)) is None
        assert await led.leadership.holder() == before
        await led.do(lambda tx: tx.log(RunPaused()))

    async def test_a_lead_that_was_given_up_is_another_s_to_take(self, led: Led, other: tuple[Store, Leadership]) -> None:
        """In a higher term."""
        _, leadership = other
        await led.leadership.give_up(led.term)
        given_up = await leadership.holder()
        assert given_up is not None
        assert given_up.given_up
        term = await leadership.take(OTHER, NOON + timedelta(seconds=1))
        assert term is not None
        assert term > led.term
        assert await leadership.holder() == Lead(term=term, holder=OTHER, renewed_at=NOON + timedelta(seconds=1))
        await leadership.give_up(term)

    async def test_terms_only_grow(self, led: Led, other: tuple[Store, Leadership]) -> None:
        """However often the lead changes hands."""
        await led.leadership.give_up(led.term)
        terms = [led.term]
        for leadership in (other[1], led.leadership, other[1], led.leadership):
            term = await leadership.take(OTHER, NOON)
            assert term is not None
            terms.append(term)
            await leadership.give_up(term)
        assert terms == sorted(set(terms))

    async def test_a_new_leader_shuts_the_old_one_out(self, led: Led, other: tuple[Store, Leadership]) -> None:
        """Whoever was cut off can neither write nor say that it is alive."""
        store, leadership = other
        await led.leadership.give_up(led.term)
        term = await leadership.take(OTHER, NOON)
        assert term is not None
        with pytest.raises(LeadLost):
            await led.do(lambda tx: tx.log(RunPaused()))
        with pytest.raises(LeadLost):
            await led.leadership.renew(led.term, NOON)
        await store.transact(lambda tx: tx.log(RunResumed()), term=term)
        assert await led.events() == [RunResumed()]
        await leadership.give_up(term)

    async def test_a_leader_says_that_it_is_alive(self, led: Led) -> None:
        """Its row bears the time."""
        await led.leadership.renew(led.term, NOON + timedelta(seconds=5))
        expected = Lead(term=led.term, holder=SOMEBODY, renewed_at=NOON + timedelta(seconds=5))
        assert await led.leadership.holder() == expected

    async def test_giving_up_a_lead_of_the_past_has_no_effect(self, led: Led, other: tuple[Store, Leadership]) -> None:
        """On whoever leads now, be it the same process again."""
        await led.leadership.give_up(led.term)
        term = await led.leadership.take(SOMEBODY, NOON)
        assert term is not None
        await led.leadership.give_up(led.term)
        await other[1].give_up(led.term)
        assert await other[1].take(OTHER, NOON) is None
        await led.leadership.renew(term, NOON)
        await led.store.transact(lambda tx: tx.log(RunPaused()), term=term)
        await led.leadership.give_up(term)

    async def test_giving_up_twice_is_giving_up_once(self, led: Led) -> None:
        """An end in a hurry may do so."""
        await led.leadership.give_up(led.term)
        await led.leadership.give_up(led.term)

    async def test_the_lead_is_free_when_its_process_was_killed(self, tmp_path: Path) -> None:
        """At once, and in a higher term; what the dead one wrote is there."""
        store, leadership = await self.open(tmp_path, StillClock())
        async with self._second(tmp_path, "lead") as process:
            first = await _said(process)
            assert first.startswith("term ")
            assert await leadership.take(SOMEBODY, NOON) is None
            process.kill()
            await process.wait()
        term = await leadership.take(SOMEBODY, NOON)
        assert term is not None
        assert term > int(first.split()[1])
        await store.transact(lambda tx: tx.log(RunPaused()), term=term)
        await leadership.give_up(term)
        await store.close()

    async def test_the_lead_is_free_when_its_process_has_ended_in_order(self, tmp_path: Path) -> None:
        """It gave it up."""
        store, leadership = await self.open(tmp_path, StillClock())
        async with self._second(tmp_path, "lead") as process:
            assert await _said(process) == "term 1"
        lead = await leadership.holder()
        assert lead is not None
        assert lead.given_up
        term = await leadership.take(SOMEBODY, NOON)
        assert term == 2
        await leadership.give_up(term)
        await store.close()

    async def test_a_second_process_sees_the_leader_and_can_only_ask(self, led: Led, tmp_path: Path) -> None:
        """Its request reaches the leader, and its writing is refused."""
        async with self._second(tmp_path, "follow") as process:
            said = [await _said(process) for _ in range(3)]
        assert said == ["term None", f"leads {SOMEBODY.pid}", "refused"]
        open_requests = await led.read(lambda view: [request.request_id for request in view.requests.open()])
        assert open_requests == [RequestId("q-of-the-second")]
        assert await led.events() == []

    @asynccontextmanager
    async def _second(self, folder: Path, mode: str) -> AsyncGenerator[Process]:
        process = await asyncio.create_subprocess_exec(*self.program(), str(folder), mode, stdin=PIPE, stdout=PIPE)
        try:
            yield process
            if process.returncode is None:
                async with asyncio.timeout(PATIENCE):
                    await process.communicate(b"")
                assert process.returncode == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _said(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return (await process.stdout.readline()).decode().strip()
