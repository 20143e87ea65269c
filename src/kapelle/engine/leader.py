"""Leading: one process at a time turns requests into state and drives the agents.

    follower --lock free--> leader --planned exit--> agents finish their turn within a bound --> lead given back
        ^                      |
        +----- LeadLost -------+   (stopped for too long: another took over; nothing more is written)

A leader renews its row every few seconds. A follower that sees no renewal for ``lead_timeout`` ends the holder (a stopped
process keeps its lock), after making sure by boot id, pid and start time that it is that very process.
"""

from asyncio import FIRST_COMPLETED, Event, TaskGroup, timeout, wait
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from kapelle.core.agent import ProcessRef
from kapelle.core.attempt import PromptState
from kapelle.core.events import LeadGivenUp
from kapelle.core.frozen import replace
from kapelle.core.leading import Leadership
from kapelle.core.requests import Request
from kapelle.core.store import View
from kapelle.engine.acts import Acts
from kapelle.engine.alerts import AlertStage
from kapelle.engine.dispatch import DispatchStage
from kapelle.engine.execute import ExecuteStage
from kapelle.engine.inbox import InboxStage
from kapelle.engine.liveness import LivenessStage
from kapelle.engine.loop import Loop, supervised
from kapelle.engine.merge import MergeStage
from kapelle.engine.meter import EngineMeter
from kapelle.engine.pool import PoolStage
from kapelle.engine.pulse import Pulse, PulseMeter
from kapelle.engine.reaping import reap, sweep_all
from kapelle.engine.recover import RecoverStage
from kapelle.engine.report import ReportStage
from kapelle.engine.stage import Stage
from kapelle.engine.submit import Asked, SubmitStage
from kapelle.engine.validate import ValidateStage
from kapelle.engine.warden import EngineWarden
from kapelle.engine.witness import Witness
from kapelle.engine.world import World

RENEW = timedelta(seconds=5)
AT_ONCE = timedelta(milliseconds=500)
"""How long agents may take to end when a person does not want to wait."""
LOOK_S = 0.005
"""Seconds between looks at whether everything is finished, at least."""


@dataclass(kw_only=True, slots=True)
class Stop:
    """How a leader is asked to end."""

    asked: Event = field(default_factory=Event)
    """Finish in order: agents end their turn, nothing new is begun."""
    at_once: Event = field(default_factory=Event)
    """Do not wait for the agents' turns."""


class Engine:
    """All stages of one leader, over one world."""

    def __init__(self, world: World, leadership: Leadership, me: ProcessRef) -> None:
        self._world = world
        self._leadership = leadership
        self._me = me
        self._loop = Loop(world.clock)
        self._asked = Asked()
        self._taken = False
        """Whether this process has the lead, is about to take it, or has not given it back yet."""

    def ask(self, request: Request) -> None:
        """Have *request* applied by the stages of this process, which leads."""
        self._asked.add(request)
        self._loop.wake()

    async def passed(self) -> None:
        """Wait until the stages were stepped once more."""
        await self._loop.passed()

    async def take(self) -> int | None:
        """Take the lead and return the term, or None when it is held: by another process, or by this one already.

        Whoever is given one gives it back by ``lead``, ``apply_requests`` or ``recover``.
        """
        if self._taken:
            # Giving back the one would open the lock that the other holds, too.
            return None
        self._taken, term = True, None
        try:
            term = await self._leadership.take(self._me, self._world.clock.now())
        finally:
            self._taken = term is not None
        return term

    async def _give_up(self, term: int) -> None:
        try:
            await self._leadership.give_up(term)
        finally:
            self._taken = False

    async def apply_requests(self, term: int, own: Request | None = None) -> None:
        """Apply what was asked, and *own*, and give the lead back, without starting anything: when nobody leads."""
        asked = Asked()
        if own is not None:
            asked.add(own)
        try:
            await SubmitStage(replace(self._world, term=term), asked).step(self._world.clock.now())
        finally:
            await self._give_up(term)

    async def recover(self, term: int) -> dict[str, str]:
        """Keep and clear away what belongs to nobody, and give the lead back: for a person who wants order without starting.

        What cannot be kept is set aside; returned is from where, and to where. Live agents are left alone: they are somebody's.
        """
        try:
            world = replace(self._world, term=term)
            stage = RecoverStage(world, self._me)
            await stage.step(world.clock.now())
            await sweep_all(world)
            return await stage.set_orphans_aside()
        finally:
            await self._give_up(term)

    async def lead(self, term: int, stop: Stop, finished: Callable[[], Awaitable[bool]]) -> None:
        """Lead until *stop* is asked or *finished* says that there is nothing left to wait for.

        Raises:
            LeadLost: another process took over.
        """
        world = replace(self._world, term=term)
        meter, warden = EngineMeter(self._loop.wake, self._loop.wake_soon, world.clock.now), EngineWarden(self._loop.wake)
        pulse = Pulse(self._loop.wake, world.clock.now)
        try:
            await world.store.read(meter.load)
            base_url = await world.gateway.start(PulseMeter(meter, pulse))
            await world.warden.start(warden)
            async with supervised() as group:
                await self._drive(world, meter, warden, pulse, base_url, group, stop, finished)
        finally:
            # The lead last, and whatever happens: in this process nobody could ever take it again.
            try:
                await world.warden.stop()
                await world.gateway.stop()
                await world.ways.stop()
            finally:
                world.evaluator.close()
                await self._give_up(term)

    async def _drive(
        self,
        world: World,
        meter: EngineMeter,
        warden: EngineWarden,
        pulse: Pulse,
        base_url: str,
        group: TaskGroup,
        stop: Stop,
        finished: Callable[[], Awaitable[bool]],
    ) -> None:
        stages = ("pool", "execute", "validate", "merge", "report", "liveness")
        acts = {name: Acts(group, self._loop.wake, self._loop.wake_soon) for name in stages}
        witness = Witness(self._loop.wake)
        world.ways.listen(witness.hear)
        execute = ExecuteStage(world, acts["execute"], meter, warden, witness, pulse, base_url)
        inbox = InboxStage(world, warden)
        report = ReportStage(world, acts["report"], acts["merge"])
        pool = PoolStage(world, acts["pool"], base_url)
        everything: list[Stage] = [
            SubmitStage(world, self._asked, meter.halting),
            DispatchStage(world),
            # After it: a spare that is behind is given away as it is, and brought up to date with its task.
            pool,
            execute,
            ValidateStage(world, acts["validate"]),
            MergeStage(world, acts["merge"]),
            inbox,
            LivenessStage(world, acts["liveness"], pulse),
            AlertStage(world),
            report,
        ]
        over = Event()
        helpers = [
            group.create_task(self._renew(world.term, over)),
            group.create_task(self._listen(world)),
            group.create_task(self._watch(finished, stop, over)),
        ]
        # Alone, and before anything else: what it finds running and does not know, it ends.
        await RecoverStage(world, self._me).step(world.clock.now())
        await self._loop.run(lambda: everything, lambda: over.is_set() or stop.asked.is_set())
        for entry in (acts["validate"], acts["merge"], acts["liveness"]):
            entry.cancel_all()
        execute.leave()
        await pool.empty()
        await self._finish_turns(world, [SubmitStage(world, self._asked, meter.halting), execute, inbox], stop)
        # An agent whose deployment has just ended is ended too.
        await execute.step(world.clock.now())
        await self._end_agents(world, grace=AT_ONCE if stop.at_once.is_set() else world.settings.goodbye)
        await acts["execute"].settled()
        # Before their workspaces go: what left the group of its agent would write in them still.
        await reap(world, self._me, grace=AT_ONCE)
        await self._tidy(execute, inbox, report, acts)
        for task in helpers:
            task.cancel()
        await world.store.transact(lambda tx: tx.log(LeadGivenUp(term=tx.term)), term=world.term)

    async def _finish_turns(self, world: World, stages: list[Stage], stop: Stop) -> None:
        """Let agents finish their turn within a bound; nothing new is begun."""
        deadline = world.clock.now() + world.settings.finish
        while world.clock.now() < deadline and await world.store.read(_turns_running):
            if await _set_within(stop.at_once, 0.2):
                return
            for stage in stages:
                await stage.step(world.clock.now())

    @staticmethod
    async def _end_agents(world: World, *, grace: timedelta) -> None:
        async with TaskGroup() as ending:
            for agent in await world.store.read(lambda view: view.agents.live()):
                if agent.process is not None:
                    await world.host.close_input(agent.process)
                    ending.create_task(world.host.end(agent.process, agent.folder, grace=grace))

    async def _tidy(self, execute: Stage, inbox: Stage, report: Stage, acts: Mapping[str, Acts]) -> None:
        """Write down how the agents ended, and clear away what finished tasks leave behind."""
        await acts["execute"].settled()
        await execute.step(self._world.clock.now())
        # What they asked, nobody asks any more.
        await inbox.step(self._world.clock.now())
        await report.step(self._world.clock.now())
        await acts["report"].settled()
        await report.step(self._world.clock.now())
        for entry in acts.values():
            entry.cancel_all()

    async def _renew(self, term: int, over: Event) -> None:
        while not over.is_set():
            await self._leadership.renew(term, self._world.clock.now())
            await _set_within(over, min(RENEW, self._world.settings.lead_timeout / 6).total_seconds())

    async def _listen(self, world: World) -> None:
        async for _ in world.hints.listen():
            self._loop.wake()

    async def _watch(self, finished: Callable[[], Awaitable[bool]], stop: Stop, over: Event) -> None:
        async with TaskGroup() as group:
            asked = group.create_task(stop.asked.wait())
            while not asked.done():
                # Begun before the look: a pass that ends during it is another reason to look.
                passed = group.create_task(self._loop.passed())
                over_now = await finished()
                if not over_now:
                    await wait({asked, passed}, return_when=FIRST_COMPLETED)
                passed.cancel()
                if over_now:
                    break
                # Passes come in bursts; one look will do for all of them.
                await _set_within(stop.asked, LOOK_S)
            asked.cancel()
        over.set()
        self._loop.wake()


async def _set_within(event: Event, seconds: float) -> bool:
    """Wait for *event*, at most so long; say whether it is set."""
    try:
        async with timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _turns_running(view: View) -> bool:
    open_states = {PromptState.SENT, PromptState.TAKEN}
    # One that waits for a person, or stands still for one, would not end its turn within any bound.
    asking = {question.agent_id for question in view.questions.open()}
    live = [agent for agent in view.agents.live() if agent.agent_id not in asking and not agent.frozen_by]
    prompts = [prompt for agent in live for prompt in view.attempts.prompts(agent.attempt_id)]
    return any(prompt.state in open_states for prompt in prompts)
