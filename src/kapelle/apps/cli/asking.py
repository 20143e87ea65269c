"""`pause`, `cancel`, `approve` and `reject`: requests to whoever leads."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from kapelle.apps import compose
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import print_json, say, say_nobody_leads
from kapelle.apps.principal import principal
from kapelle.apps.reader import Found
from kapelle.core.errors import UsageError
from kapelle.core.plain_text import counted
from kapelle.core.requests import Approve, Body, Cancel, Pause, Reject
from kapelle.core.store import View
from kapelle.core.task import TERMINAL

Which = Annotated[str, typer.Argument(metavar="RUN|TASK", help="An id, or enough of its beginning, or a name.")]
TaskOnly = Annotated[str, typer.Argument(metavar="TASK", help="An id, or enough of its beginning, or a name.")]


def pause(which: Which, *, repository: Folder = None, json: Json = False) -> None:
    """Start no new attempts of a run, or of one task; agents at work finish theirs. `kapelle resume` goes on."""

    def body(found: Found) -> Body:
        return Pause(run_id=found.run.run_id, task_id=found.task.task_id if found.task is not None else None)

    go(_ask(which, body, "Paused", run=True, repository=repository, as_json=json))


def cancel(which: Which, *, repository: Folder = None, json: Json = False) -> None:
    """End a run, or one task and what needs it. Work that is not merged is kept under refs/kapelle/."""

    def body(found: Found) -> Body:
        return Cancel(run_id=found.run.run_id, task_id=found.task.task_id if found.task is not None else None)

    go(_ask(which, body, "Cancelled", repository=repository, as_json=json))


def approve(which: TaskOnly, *, repository: Folder = None, json: Json = False) -> None:
    """Let a task go on that waits for a person (`approval: true`), or its change of protected files be merged."""

    def body(found: Found) -> Body:
        if found.task is None:
            raise UsageError(f"{which} is a run, not a task", remedy="`kapelle show RUN` lists its tasks.")
        return Approve(run_id=found.run.run_id, task_id=found.task.task_id)

    go(_ask(which, body, "Approved", repository=repository, as_json=json))


def reject(
    which: TaskOnly,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; those who need the task are told.")] = "",
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Refuse a task that waits for a person, or its change of protected files; what needs it fails."""

    def body(found: Found) -> Body:
        if found.task is None:
            raise UsageError(f"{which} is a run, not a task", remedy="`kapelle show RUN` lists its tasks.")
        return Reject(run_id=found.run.run_id, task_id=found.task.task_id, reason=reason)

    go(_ask(which, body, "Rejected", repository=repository, as_json=json))


async def _ask(
    which: str, body: Callable[[Found], Body], done: str, *, run: bool = False, repository: Path | None, as_json: bool
) -> None:
    async with compose.open_desk(valid_configuration(repository), make=False) as desk:
        found = await (desk.find_run(which) if run else desk.find(which))
        await desk.ask(body(found), principal(desk.world.store.store_id))
        name = found.task.name if found.task is not None else found.run.spec.name
        identity = found.task.task_id if found.task is not None else found.run.run_id
        led = await desk.leader() is not None
        left = 0 if led else await desk.world.store.read(lambda view: _without_a_task(view, found))
    if as_json:
        print_json({"id": identity, "name": name, "done": done.lower(), "led": led})
        return
    say(f"{done} {name} ({identity}).")
    if left:
        say_nobody_leads(f"{counted(left, 'agent')} at work {'is' if left == 1 else 'are'} ended")


def _without_a_task(view: View, found: Found) -> int:
    """Return how many agents of what was asked about are at work though nothing wants them."""
    of_run = [agent for agent in view.agents.live() if agent.run_id == found.run.run_id]
    tasks = [view.tasks.get(agent.task_id) for agent in of_run]
    return sum(task is not None and task.state in TERMINAL for task in tasks)
