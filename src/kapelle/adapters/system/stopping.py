"""Holding processes still one by one, where no control group holds all of them at once."""

import asyncio
import os
import signal
from collections.abc import Callable, Collection
from contextlib import suppress

import psutil

from kapelle.core.errors import NotStill

PATIENCE = 5.0
"""Seconds that they may take to stop."""
LOOK = 0.002
"""Seconds between looks."""
SURE = 2
"""Looks in a row in which all stand still: who was let go by another that went still meanwhile is seen in the second."""
STILL = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD, psutil.STATUS_TRACING_STOP})


async def stop(there: Callable[[], Collection[int]]) -> None:
    """Stop all processes that *there* returns, and those that they start meanwhile.

    Raises:
        NotStill: some do not stand still; all are let go again.
    """
    still = 0
    told: set[int] = set()
    try:
        async with asyncio.timeout(PATIENCE):
            while still < SURE:
                moving = [pid for pid in there() if _moves(pid, pid in told)]
                _tell(moving, signal.SIGSTOP)
                told.update(moving)
                still = 0 if moving else still + 1
                await asyncio.sleep(LOOK)
    except TimeoutError:
        go_on(there())
        raise NotStill("what the agent started does not stand still") from None


def go_on(pids: Collection[int]) -> None:
    """Let *pids* go on; no effect on those that do."""
    _tell(pids, signal.SIGCONT)


def family(pid: int) -> list[int]:
    """Return a process, and all that are below it."""
    with suppress(psutil.Error):
        return [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]
    return []


def started_by(pid: int) -> list[int]:
    """Return what the shim *pid* has started for somebody: its first child, and all that is below that one."""
    with suppress(psutil.Error):
        children = psutil.Process(pid).children()
        first = min(children, key=lambda child: (child.create_time(), child.pid), default=None)
        return [] if first is None else [first.pid, *(each.pid for each in first.children(recursive=True))]
    return []


def _moves(pid: int, told: bool) -> bool:
    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return False
    # Who waits in the kernel when told to stop stops when that is over, and does nothing before: somebody who starts a program
    # waits so until it has begun, which it never does when it was stopped first.
    return status not in STILL and not (told and status == psutil.STATUS_DISK_SLEEP)


def _tell(pids: Collection[int], what: signal.Signals) -> None:
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, what)
