"""The suite of the port of hints: ``core.ports.Hints``."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, cast

from kapelle.core.ports import Hints

PATIENCE = 30
"""Seconds after which a hint that should have come is given up."""
AGAIN = 0.05
"""Seconds after which one rings again: the listener may not have begun yet, and hints may be lost."""


@asynccontextmanager
async def _listening(hints: Hints) -> AsyncGenerator[asyncio.Event]:
    """Listen for a while; the event is set by every hint."""
    heard = asyncio.Event()

    async def listen() -> None:
        # Every adapter has written it as a generator, which is closed when nobody listens any more.
        async with aclosing(cast("Any", hints.listen())) as rings:
            async for _ in rings:
                heard.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(listen())
        yield heard
        task.cancel()


async def _ring_until(heard: asyncio.Event, ringer: Hints) -> None:
    heard.clear()
    async with asyncio.timeout(PATIENCE):
        while not heard.is_set():
            ringer.ring()
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN):
                    await heard.wait()


class HintsSuite:
    """Everything that hints owe. Give them in ``hints``: each call stands for one more process of the same store."""

    def hints(self) -> Hints:
        """Return the hints of one process."""
        raise NotImplementedError

    async def test_ringing_wakes_whoever_listens(self) -> None:
        """Again and again."""
        async with _listening(self.hints()) as heard:
            for _ in range(3):
                await _ring_until(heard, self.hints())

    async def test_ringing_with_nobody_listening_is_no_error(self) -> None:
        """It is lost, as hints may be."""
        self.hints().ring()

    async def test_ringing_never_waits(self) -> None:
        """However often, with a listener that does not come to listen."""
        ringer = self.hints()
        async with _listening(self.hints()) as heard:
            await _ring_until(heard, ringer)
            for _ in range(5000):
                ringer.ring()
            await _ring_until(heard, ringer)

    async def test_a_listener_that_left_is_not_in_the_way(self) -> None:
        """The next one hears as well."""
        for _ in range(2):
            async with _listening(self.hints()) as heard:
                await _ring_until(heard, self.hints())
            self.hints().ring()
