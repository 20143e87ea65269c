"""What every door does behind itself: ask the leader, lead when nobody does, follow, look things up."""

from asyncio import Event, TaskGroup, timeout
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from kapelle.core.agent import ProcessRef
from kapelle.core.errors import Ambiguous, LeadLost, NotFound, NotPossibleNow, StoreFailed
from kapelle.core.events import Entry
from kapelle.core.ids import RequestId, RunId
from kapelle.core.ports import Host
from kapelle.core.requests import Body, Request
from kapelle.core.run import RUN_TERMINAL, Run, RunState
from kapelle.core.store import Lead, Leadership, View
from kapelle.core.task import Task
from kapelle.engine.leader import Engine, Stop
from kapelle.engine.world import World

ANSWER_WITHIN = timedelta(seconds=10)
"""How long a leader has to apply a request, besides what it takes to end one that is stopped."""


SHORTEST = 4
"""Letters of an id that must be given, besides its r- or t-."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What an id or a prefix of one stands for."""

    run: Run
    task: Task | None = None


class Desk:
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
    ) -> None:
        self.world = world
        self._leadership = leadership
        self._engine = engine
        self._alive = alive
        self._end_process = end_process
        self._back_up = back_up
        self._backup_every = backup_every
        self._steady = steady
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
        answered = False
        patience = ANSWER_WITHIN + self.world.settings.lead_timeout
        try:
            async with timeout(patience.total_seconds()):
                # A leader that is stopped in the middle of a commit keeps everybody else from writing, too.
                async with self._relieving():
                    await self.world.store.ask([request])
                self.world.hints.ring()
                self._engine.wake()
                answered = await self._answered(request.request_id)
        except TimeoutError as error:
            raise StoreFailed("the process that leads did not answer", remedy="`kapelle status` names it.") from error
        if answered:
            settled = await self.world.store.read(lambda view: view.requests.get(request.request_id))
            if settled is not None and settled.refusal is not None:
                raise NotPossibleNow(settled.refusal)

    async def _answered(self, request_id: RequestId) -> bool:
        while True:
            settled = await self.world.store.read(lambda view: view.requests.get(request_id))
            if settled is not None and settled.settled_at is not None:
                return True
            if not self._leading:
                term = await self._engine.take()
                if term is not None:
                    await self._engine.apply_requests(term)
                    continue
                await self._relieve()
            await _rest(0.05)

    async def lead_or_follow(self, finished: Callable[[], Awaitable[bool]], stop: Stop) -> bool:
        """Stay until *finished* or *stop*: lead when nobody else does, follow otherwise. Say whether it led at the end."""
        while not stop.asked.is_set():
            term = await self._engine.take()
            if term is not None:
                self._leading = True
                try:
                    async with self._backing_up():
                        await self._engine.lead(term, stop, finished)
                except LeadLost:
                    continue
                finally:
                    self._leading = False
                return True
            if await finished():
                return False
            await self._relieve()
            await _rest(0.2)
        return False

    @asynccontextmanager
    async def _backing_up(self) -> AsyncGenerator[None]:
        """Back the store up when the lead was taken and from time to time; a store that is damaged ends the leader."""

        async def again_and_again() -> None:
            while True:
                await self._back_up()
                await _rest(self._backup_every.total_seconds())

        async with _beside(again_and_again()):
            yield

    @asynccontextmanager
    async def _relieving(self) -> AsyncGenerator[None]:
        async def look() -> None:
            while True:
                await self._relieve()
                await _rest(0.2)

        async with _beside(look()):
            yield

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

    async def leader(self) -> Lead | None:
        """Return who leads, or None when nobody does."""
        lead = await self._leadership.holder()
        if lead is None or lead.given_up or not self._alive(lead.holder):
            return None
        return lead

    async def ended(self, run_ids: Sequence[RunId]) -> bool:
        """Say whether there is nothing to wait for any more: each run has ended, or its target must be cleared by a person."""
        return await self.world.store.read(lambda view: all(_at_rest(view, view.runs.get(run_id)) for run_id in run_ids))

    async def find(self, prefix: str) -> Found:
        """Return the run or task that *prefix* (of an id) stands for; or, by its name, the task in the newest run that has it.

        Raises:
            NotFound: nothing does.
            Ambiguous: more than one thing does.
        """
        return await self.world.store.read(lambda view: _find(view, prefix))

    async def events(self, after: int = 0, run_id: RunId | None = None) -> AsyncIterator[Entry]:
        """Yield events after the sequence number *after*, for ever: those that are there, then new ones as they come."""
        while True:
            entries = await self.world.store.read(lambda view, since=after: view.events(since, run_id=run_id, limit=500))
            for entry in entries:
                after = entry.seq
                yield entry
            if not entries:
                await _rest(0.1)

    async def close(self) -> None:
        """Leave."""
        await self.world.store.close()


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


def _at_rest(view: View, run: Run | None) -> bool:
    if run is None or run.state in RUN_TERMINAL:
        return run is not None
    spec = run.spec
    if run.state is not RunState.DELIVERING or spec.repository is None or spec.target is None:
        return False
    integration = view.changes.integration(spec.repository, spec.target, run.line)
    return integration is not None and bool(integration.held_up)


def _find(view: View, word: str) -> Found:
    """Names go first: a short one may well be the beginning of somebody's id, which nobody means."""
    if not word.startswith(("r-", "t-")):
        for overview in view.runs.overviews():
            named = [task for task in view.tasks.find(word, overview.run.run_id) if task.name == word]
            if named:
                return Found(run=overview.run, task=named[0])
        if len(word) < SHORTEST:
            raise NotFound(f"nothing has the id or the name {word}")
    runs = view.runs.find(word if word.startswith("r-") else f"r-{word}")
    tasks = view.tasks.find(word if word.startswith("t-") else f"t-{word}")
    if len(runs) + len(tasks) > 1:
        raise Ambiguous(f"{word} is the beginning of more than one id")
    run = view.runs.get(runs[0] if runs else tasks[0].run_id) if runs or tasks else None
    if run is None:
        raise NotFound(f"nothing has the id or the name {word}")
    return Found(run=run, task=tasks[0] if tasks else None)


async def _rest(seconds: float) -> None:
    # Waiting for another process: there is nothing to be woken by.
    try:
        async with timeout(seconds):
            await Event().wait()
    except TimeoutError:
        return
