"""Points: places in the fakes at which a test holds things up or lets them fail."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager


class Points:
    """Every act of a fake passes a point of its name when it begins and one called ``NAME:done`` when it is done.

    A test holds a point to stop whatever passes it (and to let its leader die just there), or lets it fail.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.changed = changed
        """Called whenever something was held up."""
        self.passed: list[str] = []
        """The names of all acts that began, in order."""
        self._held: dict[str, asyncio.Event] = {}
        self._errors: defaultdict[str, list[Exception]] = defaultdict(list)
        self._waiting: dict[asyncio.Task[object], asyncio.Event] = {}

    def hold(self, name: str) -> None:
        """Stop whatever passes *name* from now on."""
        self._held.setdefault(name, asyncio.Event())

    def release(self, name: str) -> None:
        """Let go on what is held at *name*, and hold it no more."""
        event = self._held.pop(name, None)
        if event is not None:
            event.set()

    def fail(self, name: str, error: Exception, *, times: int = 1) -> None:
        """Let the next *times* acts called *name* raise *error*."""
        self._errors[name] += [error] * times

    def heal(self) -> None:
        """Let everything work, and go on, from now on."""
        self._errors.clear()
        for name in list(self._held):
            self.release(name)

    @property
    def blocked(self) -> set[asyncio.Task[object]]:
        """The tasks that are held up at a point just now."""
        return {task for task, event in self._waiting.items() if not event.is_set()}

    @asynccontextmanager
    async def passing(self, name: str) -> AsyncGenerator[None]:
        """Do the act *name*."""
        self.passed.append(name)
        await self._pass(name)
        yield
        await self._pass(f"{name}:done")

    async def _pass(self, name: str) -> None:
        event, task = self._held.get(name), asyncio.current_task()
        if event is not None and task is not None:
            self._waiting[task] = event
            self.changed()
            try:
                await event.wait()
            finally:
                del self._waiting[task]
        if self._errors[name]:
            raise self._errors[name].pop(0)
