"""What every door does behind itself: ask the leader, lead when nobody does, follow, look things up."""

from asyncio import timeout
from collections.abc import Awaitable, Callable

from kapelle.apps.reader import Reader, rest, within
from kapelle.core.agent import ProcessRef
from kapelle.core.errors import LeadLost, NotPossibleNow, StoreFailed
from kapelle.core.ids import RequestId
from kapelle.core.ports import Host
from kapelle.core.requests import Body, Request
from kapelle.core.store import Leadership
from kapelle.engine.leader import STALE, Engine, Stop
from kapelle.engine.world import World

ANSWER_WITHIN = 40.0
"""Seconds a leader has to apply a request: longer than a follower takes to end one that is stopped."""


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
    ) -> None:
        super().__init__(world.store, world.clock, leadership, alive=alive)
        self.world = world
        self._engine = engine
        self._end_process = end_process
        self._leading = False

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
        if self._leading:
            self._engine.ask(request)
        else:
            await self._append(request)
        answered = False
        try:
            async with timeout(ANSWER_WITHIN):
                answered = await self._answered(request)
        except TimeoutError as error:
            raise StoreFailed("the process that leads did not answer", remedy="`kapelle status` names it.") from error
        if answered:
            settled = await self.world.store.read(lambda view: view.requests.get(request.request_id))
            if settled is not None and settled.refusal is not None:
                raise NotPossibleNow(settled.refusal)

    async def _append(self, request: Request) -> None:
        """Put *request* where whoever leads finds it."""
        await self.world.store.ask([request])
        self.world.hints.ring()

    async def _answered(self, request: Request) -> bool:
        wait = SOON
        while True:
            if self._leading:
                # Its own stages apply it: there is nothing to see before they were stepped.
                await within(LATER, self._engine.passed())
            settled = await self.world.store.read(lambda view: view.requests.get(request.request_id))
            if settled is None and not self._leading:
                # It was asked of this process, which has lost the lead before it was applied.
                await self._append(request)
            if settled is not None and settled.settled_at is not None:
                return True
            if not self._leading:
                term = await self._engine.take()
                if term is not None:
                    await self._engine.apply_requests(term)
                    continue
                await self._relieve()
                await rest(wait)
                wait = min(2 * wait, LATER)

    async def lead_or_follow(self, finished: Callable[[], Awaitable[bool]], stop: Stop) -> bool:
        """Stay until *finished* or *stop*: lead when nobody else does, follow otherwise. Say whether it led at the end."""
        while not stop.asked.is_set():
            term = await self._engine.take()
            if term is not None:
                self._leading = True
                try:
                    await self._engine.lead(term, stop, finished)
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

    async def _relieve(self) -> None:
        """End a leader that has shown no sign of life for too long (a stopped process keeps its lock)."""
        lead = await self._leadership.holder()
        if lead is None or lead.given_up or self.world.clock.now() - lead.renewed_at < STALE:
            return
        self._end_process(lead.holder)
