"""What happens to a run, told line by line while it lasts."""

import asyncio
import importlib
import sys
from collections.abc import Iterator

from kapelle.apps.cli.lines import note
from kapelle.apps.cli.telling import line_of
from kapelle.apps.desk import Desk
from kapelle.apps.views import RunReport, run_report
from kapelle.core.events import ChangeHeld, Entry, TaskStarted
from kapelle.core.ids import RunId

MOST = 500
"""Events that are taken in at once."""
OUTPUT = "kapelle.apps.cli.output"
"""What the report of a run is printed by."""


class Watcher:
    """Follows one run by its events and tells them, a line each."""

    def __init__(self, desk: Desk, run_id: RunId) -> None:
        self._desk = desk
        self._run_id = run_id
        self._names: dict[str, str] = {}
        self._seq = 0
        self._reviews: set[str] = set()
        """Commits whose review was asked for."""

    def note(self, text: str) -> None:
        """Tell a person *text*."""
        note(text)

    async def skip(self) -> None:
        """Tell only what happens from now on."""
        self._seq = await self._desk.world.store.read(lambda view: view.last_seq())

    async def show(self, over: asyncio.Event) -> None:
        """Show the run until *over* is set."""
        loading: asyncio.Future[object] | None = None
        while True:
            last = over.is_set()
            report = await self._report() if not self._names else None
            if report is not None:
                self._names = {entry.task.task_id: entry.task.name for entry in report.tasks}
            entries = await self._entries()
            if any(isinstance(entry.event, ChangeHeld) for entry in entries):
                report = await self._report()
            for entry in entries:
                for line in line_of(entry.event, self._names):
                    sys.stdout.write(f"{entry.at.astimezone():%H:%M:%S} {line}\n")
            for text in self._new_reviews(report) if report is not None else ():
                sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
            if loading is None and any(_is_at_work(entry) for entry in entries):
                # While an agent works there is time for it; at the end it would be waited for.
                loading = asyncio.get_running_loop().run_in_executor(None, importlib.import_module, OUTPUT)
            if len(entries) == MOST:
                # There may be more behind them: at the end, too, everything is told.
                continue
            if last:
                break
            await within(over, 0.1)
        if loading is not None:
            await loading

    async def _report(self) -> RunReport | None:
        return await self._desk.world.store.read(lambda view: run_report(view, self._run_id))

    async def _entries(self) -> list[Entry]:
        found = await self._desk.world.store.read(lambda view: view.events(self._seq, run_id=self._run_id, limit=MOST))
        if found:
            self._seq = found[-1].seq
        return list(found)

    def _new_reviews(self, report: RunReport) -> Iterator[str]:
        """Yield how to review what waits for that and was not told of yet."""
        for entry in report.tasks:
            review = entry.review
            if review is not None and review.commit not in self._reviews:
                self._reviews.add(review.commit)
                yield review.text


def _is_at_work(entry: Entry) -> bool:
    return isinstance(entry.event, TaskStarted)


async def within(event: asyncio.Event, seconds: float) -> None:
    """Wait for *event*, for so many *seconds* at most."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
