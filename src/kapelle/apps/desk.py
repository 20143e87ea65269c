"""What every door does behind itself: ask the leader, lead when nobody does, follow, look things up."""

from asyncio import Event, timeout
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from kapelle.core.agent import ProcessRef
from kapelle.core.errors import Ambiguous, LeadLost, NotFound, NotPossibleNow, StoreFailed
from kapelle.core.events import Entry
from kapelle.core.ids import RequestId, RunId
from kapelle.core.ports import Host
from kapelle.core.requests import Body, Request
from kapelle.core.run import RUN_TERMINAL, Run, RunState
from kapelle.core.store import Lead, Leadership, View
from kapelle.core.task import Task
from kapelle.engine.leader import STALE, Engine, Stop
from kapelle.engine.world import World

ANSWER_WITHIN = 40.0
"""Seconds a leader has to apply a request: longer than a follower takes to end one that is stopped."""


SOON, LATER = 0.002, 0.05
"""Seconds between looks at a request that another process is to apply: at first, and in the long run."""
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
    ) -> None:
        self.world = world
        self._leadership = leadership
        self._engine = engine
        self._alive = alive
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
                await _within(LATER, self._engine.passed())
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
                await _rest(wait)
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
            await _rest(0.2)
        return False

    async def _relieve(self) -> None:
        """End a leader that has shown no sign of life for too long (a stopped process keeps its lock)."""
        lead = await self._leadership.holder()
        if lead is None or lead.given_up or self.world.clock.now() - lead.renewed_at < STALE:
            return
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
    await _within(seconds, Event().wait())


async def _within(seconds: float, what: Awaitable[object]) -> None:
    """Wait for *what*, at most so long."""
    try:
        async with timeout(seconds):
            await what
    except TimeoutError:
        return
