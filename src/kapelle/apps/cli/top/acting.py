"""What keys ask of the leader: beside the screen, in threads of their own, each at a desk of its own, as a command would."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from threading import Thread

from kapelle.apps import compose
from kapelle.apps import steering as asks
from kapelle.apps.agents import agent_named
from kapelle.apps.cli.inbox import answered
from kapelle.apps.desk import Desk
from kapelle.apps.inbox import Item, Said
from kapelle.apps.settings import Configuration
from kapelle.core.agent import Agent
from kapelle.core.errors import KapelleError

LEAVE = 2.0
"""Seconds that are waited at the end for what is still being done, all together."""


class Acting:
    """Does things in threads; tells what came of them, in whatever thread that was."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        tell: Callable[[str, bool], None],
        broken: Callable[[Exception], None],
    ) -> None:
        self._configuration = configuration
        self._tell, self._broken = tell, broken
        self._threads: list[Thread] = []
        self._acts: list[Thread] = []
        """Those of the threads that do what somebody asked for."""

    @property
    def at_work(self) -> bool:
        """Whether something is being done, or looked at."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def undone(self) -> int:
        """How many things were asked for that are still being done."""
        return sum(thread.is_alive() for thread in self._acts)

    def begin(self, work: Callable[[], None]) -> Thread:
        """Do *work* in a thread; what nobody foresaw is handed to whoever has the screen."""

        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001  # it is raised where the screen is, which ends then
                self._broken(error)

        thread = Thread(target=guarded, daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()
        return thread

    async def leave(self) -> None:
        """Wait a little for what is being done."""
        deadline = time.monotonic() + LEAVE
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(deadline - time.monotonic(), 0))

    def steer(self, agent_id: str, done: str, act: Callable[[Desk, Agent], Awaitable[object]]) -> None:
        """Do *act* about an agent; *done* is what is told then."""

        async def steer(desk: Desk) -> str:
            await act(desk, await desk.store.read(lambda view: agent_named(view, agent_id)))
            return done

        self._act(steer)

    def answer(self, item: Item, said: Said, *, reason: str = "", amount: str = "") -> None:
        """Answer what waits for a person."""

        async def answer(desk: Desk) -> str:
            return answered(await asks.answer(desk, item.item_id, said, reason=reason, amount=amount), said, amount)

        self._act(answer)

    def halt(self, *, off: bool) -> None:
        """Stop everything or, with *off* being False, let everything go on."""

        async def act(desk: Desk) -> str:
            await (asks.halt(desk) if off else asks.unhalt(desk))
            return "Halted: nothing calls a model until h is pressed again." if off else "Everything goes on."

        # An off switch holds for whatever comes, also where nothing was ever submitted.
        self._act(act, make=off)

    def _act(self, act: Callable[[Desk], Awaitable[str]], *, make: bool = False) -> None:
        async def at_desk() -> str:
            async with compose.open_desk(self._configuration, make=make) as desk:
                return await act(desk)

        def work() -> None:
            try:
                self._tell(asyncio.run(at_desk()), False)
            except KapelleError as error:
                self._tell(f"{error} → {error.advice}" if error.advice else str(error), True)

        self._acts = [each for each in self._acts if each.is_alive()] + [self.begin(work)]
