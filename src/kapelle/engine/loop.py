"""The loop: step every stage, sleep until the earliest wake-up, begin again."""

from asyncio import Event, TaskGroup, TimerHandle, get_running_loop, sleep, timeout
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from kapelle.core.ports import Clock
from kapelle.engine.stage import Stage

HEAL = timedelta(seconds=1)
"""A hint may be lost; after this time the stages look for themselves."""
SOON = 0.1
"""Seconds within which what nobody waits for is looked at. Agents that work side by side say many things in that time, and a
pass for all of them takes hardly longer than a pass for one."""


class Loop:
    """Steps stages, as long as there is reason to."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._woken = Event()
        self._alarm: TimerHandle | None = None
        """Wakes the stages for what has time."""
        self._passed = Event()
        """Set at the end of the pass that is being made; each has one of its own."""

    def wake(self) -> None:
        """Let the stages be stepped soon; to be called in the loop's own thread."""
        self._woken.set()

    def wake_soon(self) -> None:
        """Let the stages be stepped within ``SOON``, for what nobody waits for; to be called in the loop's own thread."""
        if self._alarm is None:
            self._alarm = get_running_loop().call_later(SOON, self.wake)

    async def passed(self) -> None:
        """Wait until every stage was stepped once more, or the rest of that where a pass is being made."""
        await self._passed.wait()

    async def run(self, stages: Callable[[], Sequence[Stage]], until: Callable[[], bool]) -> None:
        """Step ``stages()`` until *until* says so. Which stages there are may change from pass to pass."""
        while not until():
            self._woken.clear()
            if self._alarm is not None:
                # This pass sees what it was set for.
                self._alarm.cancel()
                self._alarm = None
            now = self._clock.now()
            wakes = await step_together(stages(), now)
            over, self._passed = self._passed, Event()
            over.set()
            if until():
                return
            await self._sleep(min(wakes, default=now + HEAL))

    async def _sleep(self, moment: datetime) -> None:
        rest = min(moment - self._clock.now(), HEAL).total_seconds()
        if rest <= 0:
            # Others (the gateway, the acts) get their turn even when there is always more to do.
            await sleep(0)
            return
        try:
            async with timeout(rest):
                await self._woken.wait()
        except TimeoutError:
            return


async def step_together(stages: Sequence[Stage], now: datetime) -> list[datetime]:
    """Step *stages* at the same time; return when they want to be called again.

    They order their transactions in this order and one right after the other, so the store does them in one: each stage sees
    what those before it wrote, and all of it is synced to the disk once. The first error of a stage ends the other steps.
    """
    async with supervised() as group:
        steps = [group.create_task(stage.step(now)) for stage in stages]
    return [wake for step in steps for wake in [step.result()] if wake is not None]


@asynccontextmanager
async def supervised() -> AsyncGenerator[TaskGroup]:
    """Give a task group whose first error is raised as itself, not wrapped in a group."""
    try:
        async with TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
