"""Looking at the fleet again and again, in a thread of its own: whatever the store does, the screen goes on.

    look -> tell -> wait a second, or until somebody has done something -> look
     | the store does not answer, or another one is in its place
     +-> say so, open it anew -> look

What adds up model calls (``fleet.sums``) is done so seldom that it takes a twentieth of the time at most.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from queue import SimpleQueue
from threading import Event

from kapelle.apps import compose
from kapelle.apps.explaining import around_of
from kapelle.apps.fleet import Fleet, Sums, fleet, sums
from kapelle.apps.health import system_health
from kapelle.apps.reader import Reader
from kapelle.apps.settings import Configuration
from kapelle.core.errors import KapelleError
from kapelle.core.frozen import replace

EVERY = timedelta(seconds=1)
"""How often the fleet is looked at."""
SHARE = 20
"""Adding up is done after so many times as long as it has taken."""


class Looking:
    """Looks at the fleet of one store; what was added up is remembered for a while."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._sums = Sums()
        self._gateway: bool | None = None
        self._again_at = float("-inf")
        """When it is added up again, by a clock that nobody sets."""

    async def look(self, reader: Reader) -> Fleet:
        """Return how everything stands.

        Raises:
            StoreFailed: the store does not answer.
        """
        now, lead = reader.clock.now(), await reader.leader()
        began = time.monotonic()
        thorough = began >= self._again_at
        system = await system_health(self._configuration, lead, now, gateway=thorough)
        if thorough:
            self._gateway = system.gateway
            began = time.monotonic()
            self._sums = await reader.store.read(lambda view: sums(view, now))
            self._again_at = time.monotonic() + (time.monotonic() - began) * SHARE
        system = replace(system, gateway=self._gateway if lead is not None else None)
        around = replace(await around_of(self._configuration), measure=system.measure)
        found = await reader.store.read(lambda view: fleet(view, around, system, lead, self._sums, now))
        return replace(found, agents=tuple(replace(stand, alive=reader.alive(stand.report.agent)) for stand in found.agents))


async def look_once(configuration: Configuration) -> Fleet:
    """Return how everything stands now.

    Raises:
        KapelleError: the store does not answer.
    """
    async with compose.open_reader(configuration) as reader:
        return await Looking(configuration).look(reader)


class Watch:
    """Looks again and again; made to be run in a thread."""

    def __init__(
        self, configuration: Configuration, tell: Callable[[Fleet], None], fail: Callable[[KapelleError], None]
    ) -> None:
        self._configuration = configuration
        self._tell, self._fail = tell, fail
        self._stopped = False
        self._woken = Event()
        self._afterwards: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def look_now(self, then: Callable[[], None] = lambda: None) -> None:
        """Look without waiting: something was done. *then* is called when that was seen, or cannot be."""
        self._afterwards.put(then)
        self._woken.set()

    def stop(self) -> None:
        """End; what is being looked at is looked at to its end."""
        self._stopped = True
        self._woken.set()

    def run(self) -> None:
        """Look until ``stop``."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        home = self._configuration.settings.home
        looking = Looking(self._configuration)
        while not self._stopped:
            try:
                mark = compose.store_mark(home)
                async with compose.open_reader(self._configuration) as reader:
                    # Where there was no store there may be one now; where there was one, a backup may be in its place.
                    while not self._stopped and compose.store_mark(home) == mark:
                        # What is asked for while this looks may not be in what it sees.
                        asked = self._afterwards.qsize()
                        self._tell(await looking.look(reader))
                        self._call(asked)
                        self._wait()
            except KapelleError as error:
                self._fail(error)
                self._call(self._afterwards.qsize())
                self._wait()

    def _call(self, number: int) -> None:
        for _ in range(number):
            self._afterwards.get()()

    def _wait(self) -> None:
        # Nothing else goes on in this thread.
        self._woken.wait(EVERY.total_seconds())
        self._woken.clear()
