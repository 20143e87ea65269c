"""The loop: step every stage, sleep until the earliest wake-up, begin again."""

from asyncio import Event, timeout
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from kapelle.core.ports import Clock
from kapelle.engine.stage import Stage

HEAL = timedelta(seconds=1)
"""A hint may be lost; after this time the stages look for themselves."""


class Loop:
    """Steps stages in order, as long as there is reason to."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._woken = Event()

    def wake(self) -> None:
        """Let the stages be stepped soon; to be called in the loop's own thread."""
        self._woken.set()

    async def run(self, stages: Callable[[], Sequence[Stage]], until: Callable[[], bool]) -> None:
        """Step ``stages()`` until *until* says so. Which stages there are may change from pass to pass."""
        while not until():
            self._woken.clear()
            now = self._clock.now()
            wakes = [moment for stage in stages() for moment in [await stage.step(now)] if moment is not None]
            if until():
                return
            await self._sleep(min(wakes, default=now + HEAL))

    async def _sleep(self, moment: datetime) -> None:
        rest = min(moment - self._clock.now(), HEAL).total_seconds()
        if rest <= 0:
            # Others (the gateway, the acts) get their turn even when there is always more to do.
            rest = 0.0005
        try:
            async with timeout(rest):
                await self._woken.wait()
        except TimeoutError:
            return
