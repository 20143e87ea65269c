"""`kapelle run` and `kapelle resume`: lead or follow, show what happens, end in order on Ctrl-C."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from kapelle.apps.cli.watching import Watcher
from kapelle.apps.desk import Desk
from kapelle.apps.memory import collect_less
from kapelle.core.ids import RunId
from kapelle.engine.leader import Stop


async def stay(desk: Desk, run_id: RunId, *, live: bool, quiet: bool = False, resumed: bool = False) -> bool:
    """Lead or follow until the run has ended; return False when a person interrupted it.

    Of a run that is *resumed*, only what happens from now on is told.
    """
    stop, over = Stop(), asyncio.Event()
    watcher = _watcher(desk, run_id, live=live)

    async def finished() -> bool:
        return await desk.ended([run_id])

    if resumed:
        await watcher.skip()

    try:
        async with asyncio.TaskGroup() as group:
            showing = None if quiet else group.create_task(watcher.show(over))
            await lead_until(desk, finished, stop, watcher.note)
            over.set()
            if showing is not None:
                await showing
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return await desk.ended([run_id])


def _watcher(desk: Desk, run_id: RunId, *, live: bool) -> Watcher:
    if not live:
        return Watcher(desk, run_id)
    # What draws is loaded for a terminal alone.
    from kapelle.apps.cli.drawing import DrawingWatcher

    return DrawingWatcher(desk, run_id)


async def lead_until(desk: Desk, finished: Callable[[], Awaitable[bool]], stop: Stop, note: Callable[[str], None]) -> None:
    """Lead or follow until *finished*, or until a person interrupts it; *note* tells that person what happens then."""
    collect_less()
    with _signals(stop, note):
        await desk.lead_or_follow(finished, stop)


class _signals:  # noqa: N801  # used as a statement: with _signals(...)
    """First Ctrl-C: end in order. Second: at once."""

    def __init__(self, stop: Stop, note: Callable[[str], None]) -> None:
        self._stop = stop
        self._note = note

    def _caught(self) -> None:
        if self._stop.asked.is_set():
            self._stop.at_once.set()
            self._note("Stopping now.")
            return
        self._stop.asked.set()
        self._note("Stopping: agents finish their turn (at most a minute). Ctrl-C again stops now.")

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._caught)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
