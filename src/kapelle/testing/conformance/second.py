"""A second process on the same store, for the suites of leadership; see ``leadership.LeadershipSuite.program``."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from kapelle.core.agent import ProcessRef
from kapelle.core.errors import LeadLost
from kapelle.core.events import RunPaused
from kapelle.core.ids import RequestId
from kapelle.core.leading import Leadership
from kapelle.core.ports import Clock
from kapelle.core.store import Store
from kapelle.testing.conformance.samples import NOON, StillClock, a_request

Opener = Callable[[Path, Clock], Awaitable[tuple[Store, Leadership]]]


def main(open_store: Opener) -> None:
    """Do what the command line says: FOLDER and one of ``lead``, ``follow``."""
    folder, mode = sys.argv[1:]
    asyncio.run({"lead": _lead, "follow": _follow}[mode](open_store, Path(folder)))


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()


async def _lead(open_store: Opener, folder: Path) -> None:
    """Take the lead, say the term, and hold it until the input ends."""
    store, leadership = await open_store(folder, StillClock())
    term = await leadership.take(ProcessRef(boot_id="boot-2", pid=2, started="2"), NOON)
    _say("term", term)
    await asyncio.to_thread(sys.stdin.read)
    if term is not None:
        await leadership.give_up(term)
    await store.close()


async def _follow(open_store: Opener, folder: Path) -> None:
    """Ask for something, and try to write with the present leader's term and with others."""
    store, leadership = await open_store(folder, StillClock())
    await store.ask([a_request(request_id=RequestId("q-of-the-second"))])
    _say("term", await leadership.take(ProcessRef(boot_id="boot-2", pid=2, started="2"), NOON))
    lead = await leadership.holder()
    _say("leads", None if lead is None else lead.holder.pid)
    try:
        await store.transact(lambda tx: tx.log(RunPaused()), term=0)
    except LeadLost:
        _say("refused")
    await store.close()
