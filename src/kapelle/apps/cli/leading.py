"""`kapelle resume --stay`: lead until a person ends it, whether or not there is something to do."""

import asyncio
import sys

from kapelle.apps import compose
from kapelle.apps.cli.lines import note, print_json, say
from kapelle.apps.cli.running import lead_until
from kapelle.apps.cli.telling import line_of
from kapelle.apps.desk import Desk
from kapelle.apps.settings import Configuration
from kapelle.core.plain_text import counted
from kapelle.core.store import View
from kapelle.engine.leader import Stop

LOOK = 0.2
"""Seconds between looks at the event log."""


async def stay_and_lead(found: Configuration, *, as_json: bool) -> int:
    """Lead, or follow whoever does, until interrupted; tell what happens to all runs, a line each."""
    stop, over = Stop(), asyncio.Event()

    async def never() -> bool:
        return False

    async with compose.open_desk(found) as desk:
        runs = await desk.world.store.read(lambda view: len(view.runs.open()))
        if not as_json:
            note(f"Leading {counted(runs, 'run')}, and whatever is submitted. Ctrl-C ends it in order.")
        try:
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(_tell(desk, over, quiet=as_json))
                await lead_until(desk, never, stop, note)
                over.set()
                await telling
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        left = await desk.world.store.read(lambda view: len(view.runs.open()))
    if as_json:
        print_json({"runs_left": left})
    elif left:
        note(f"Ended with {counted(left, 'run')} left. Nothing is lost: `kapelle resume` goes on.")
    return 0


async def _tell(desk: Desk, over: asyncio.Event, *, quiet: bool) -> None:
    seq = await desk.world.store.read(lambda view: view.last_seq())
    while not quiet:
        last = over.is_set()
        lines, seq = await desk.world.store.read(lambda view, after=seq: _lines(view, after))
        for line in lines:
            say(line)
        sys.stdout.flush()
        if last:
            return
        if not lines:
            try:
                async with asyncio.timeout(LOOK):
                    await over.wait()
            except TimeoutError:
                continue


def _lines(view: View, after: int) -> tuple[list[str], int]:
    found: list[str] = []
    for entry in view.events(after, limit=500):
        after = entry.seq
        run_id = entry.event.run_id
        run = view.runs.get(run_id) if run_id is not None else None
        task = view.tasks.get(entry.event.task_id) if entry.event.task_id is not None else None
        names: dict[str, str] = {} if task is None else {task.task_id: task.name}
        # A run of one task has its name: it is said once.
        named = run is not None and (task is None or task.name != run.spec.name)
        whose = f"{run.spec.name}: " if run is not None and named else ""
        found += [f"{entry.at.astimezone():%H:%M:%S} {whose}{line}" for line in line_of(entry.event, names)]
    return found, after
