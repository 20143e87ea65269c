"""What every door does behind itself: ask the leader, lead when nobody does, follow, look things up."""

from asyncio import TaskGroup, timeout
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from datetime import datetime, timedelta

from kapelle.apps.reader import Reader, rest, within
from kapelle.core.agent import ProcessRef
from kapelle.core.errors import LeadLost, NotPossibleNow, StoreFailed
from kapelle.core.ids import RequestId
from kapelle.core.leading import Leadership
from kapelle.core.ports import Host
from kapelle.core.requests import Body, Request, Settlement
from kapelle.engine.leader import Engine, Stop
from kapelle.engine.world import World

ANSWER_WITHIN = timedelta(seconds=10)
"""How long a leader has to apply a request, besides what it takes to end one that is stopped."""

FIRST_BACKUP = timedelta(seconds=1)
"""After the lead was taken."""

SOON, LATER = 0.002, 0.05
"""Seconds between looks at a request that another process is to apply: at first, and in the long run."""


class Desk(Reader):
    """One process's place at a store."""

    def __init__(
        self,
        world: World,
        leadership: Leadership,
        engine: Engine,
        *,
        alive: Callable[[ProcessRef], bool],
        end_process: Callable[[ProcessRef], None],
        back_up: Callable[[], Awaitable[None]],
        backup_every: timedelta,
        steady: Callable[[], float],
        while_leading: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__(world.store, world.clock, leadership, alive=alive)
        self.world = world
        self._leadership = leadership
        self._engine = engine
        self._end_process = end_process
        self._back_up = back_up
        self._backup_every = backup_every
        self._steady = steady
        self._while_leading = while_leading
        self._leading = False
        self._sign: tuple[int, datetime] | None = None
        """The last sign of life that was seen: term and time of its renewal."""
        self._seen_at = 0.0
        """When it was first seen, by a clock that nobody sets."""

    @property
    def host(self) -> Host:
        """The machine that agents run on."""
        return self.world.host

    async def ask(self, body: Body, principal: str) -> None:
        """Ask the leader for something and wait until it is done; with nobody leading, take the lead for just that.

        Raises:
            NotPossibleNow: it was refused; the message says why.
            StoreFailed: the leader did not answer.
        """
        request = Request(
            request_id=RequestId(self.world.new_id("q")), body=body, principal=principal, asked_at=self.world.clock.now()
        )
        patience = ANSWER_WITHIN + self.world.settings.lead_timeout
        try:
            async with timeout(patience.total_seconds()):
                if self._leading:
                    self._engine.ask(request)
                elif not await self._done_here(request):
                    await self._append(request)
                said = await self._answered(request)
        except TimeoutError as error:
            raise StoreFailed("the process that leads did not answer", remedy="`kapelle status` names it.") from error
        if said.refusal is not None:
            message, _, advice = said.refusal.rpartition("\n")
            raise NotPossibleNow(message, remedy=advice) if message else NotPossibleNow(advice)

    async def _done_here(self, request: Request) -> bool:
        """Take the lead for just *request* where nobody has it; say whether it is settled."""
        term = await self._engine.take()
        if term is None:
            return False
        try:
            await self._engine.apply_requests(term, request)
        except LeadLost:
            # Nothing of it was written: whoever leads now is asked.
            return False
        return True

    async def _append(self, request: Request) -> None:
        """Put *request* where whoever leads finds it."""
        # A leader that is stopped in the middle of a commit keeps everybody else from writing, too.
        async with _beside(self._relieve_again_and_again()):
            await self.world.store.ask([request])
        self.world.hints.ring()

    async def _answered(self, request: Request) -> Settlement:
        wait = SOON
        while True:
            if self._leading:
                # Its own stages apply it: there is nothing to see before they were stepped.
                await within(LATER, self._engine.passed())
            said = await self.world.store.read(lambda view: view.requests.settlement(request.request_id))
            if said is None and not self._leading:
                # It was asked of this process, which has lost the lead before it was applied.
                await self._append(request)
            if said is not None and said.at is not None:
                return said
            if not self._leading:
                term = await self._engine.take()
                if term is not None:
                    # Who took the lead from this process meanwhile applies it.
                    with suppress(LeadLost):
                        await self._engine.apply_requests(term)
                    continue
                await self._relieve()
                await rest(wait)
                wait = min(2 * wait, LATER)

    async def settle(self) -> None:
        """Have applied what was asked for by somebody who was killed before it was, unless somebody leads, who does it."""
        while await self.world.store.read(lambda view: view.requests.open(limit=1)):
            term = await self._engine.take()
            if term is None:
                return
            with suppress(LeadLost):
                await self._engine.apply_requests(term)

    async def tidy(self) -> dict[str, str] | None:
        """Keep and clear away what belongs to nobody; what cannot be kept is set aside: return from where, and to where.

        None when nothing was done, since somebody leads.
        """
        term = await self._engine.take()
        if term is None:
            return None
        return await self._engine.recover(term)

    async def lead_or_follow(self, finished: Callable[[], Awaitable[bool]], stop: Stop) -> bool:
        """Stay until *finished* or *stop*: lead when nobody else does, follow otherwise. Say whether it led at the end."""
        while not stop.asked.is_set():
            term = await self._engine.take()
            if term is not None:
                self._leading = True
                try:
                    with self._while_leading():
                        async with _beside(self._back_up_again_and_again()):
                            await self._engine.lead(term, stop, finished)
                    # What has come to its end is in a backup, however short its run was.
                    await self._back_up()
                except LeadLost:
                    continue
                finally:
                    self._leading = False
                return True
            if await finished():
                return False
            await self._relieve()
            await rest(0.2)
        return False

    async def _back_up_again_and_again(self) -> None:
        """Back the store up soon after the lead was taken and from time to time; a store that is damaged ends the leader.

        Not at once: the first agents would be started later for it.

        Once more when the lead was given up: see ``lead_or_follow``.
        """
        await rest(min(FIRST_BACKUP, self._backup_every).total_seconds())
        while True:
            await self._back_up()
            await rest(self._backup_every.total_seconds())

    async def _relieve_again_and_again(self) -> None:
        while True:
            await self._relieve()
            await rest(0.2)

    async def _relieve(self) -> None:
        """End a leader that has shown no sign of life for too long (a stopped process keeps its lock).

        What counts is how long no new sign came, by this process's own count: the time of day may be set forward or back.
        """
        lead = await self._leadership.holder()
        now = self._steady()
        sign = None if lead is None or lead.given_up else (lead.term, lead.renewed_at)
        if sign is None or sign != self._sign:
            self._sign, self._seen_at = sign, now
            return
        if lead is not None and now - self._seen_at >= self.world.settings.lead_timeout.total_seconds():
            self._end_process(lead.holder)


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncGenerator[None]:
    """Do *work* beside the body, as long as that lasts; an error in either ends both, and is raised as itself."""
    try:
        async with TaskGroup() as group:
            beside = group.create_task(work)
            yield
            beside.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
