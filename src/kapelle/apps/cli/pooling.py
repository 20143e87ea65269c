"""`pool`, `scale` and `deploy`."""

from pathlib import Path
from typing import Annotated

import typer

from kapelle.apps import compose, models
from kapelle.apps.cli.common import Folder, Json, configuration, go, valid_configuration
from kapelle.apps.cli.lines import note, print_json, say
from kapelle.apps.cli.output import out
from kapelle.apps.cli.tables import Column, print_table
from kapelle.apps.desk import Desk
from kapelle.apps.pool import Stand, stand_json, stands, wanted_text
from kapelle.apps.principal import principal
from kapelle.apps.runs import prepare
from kapelle.apps.settings import Configuration
from kapelle.apps.workflows import single_task
from kapelle.core.errors import CredentialsMissing, UsageError
from kapelle.core.plain_text import counted
from kapelle.core.pool import make_of
from kapelle.core.requests import Deploy, Scale
from kapelle.core.run import RunSpec
from kapelle.documents import Document
from kapelle.engine.scaling import not_beforehand

COLUMNS = (
    Column(name="AGENT", folds=True),
    Column(name="PROJECT", folds=True),
    Column(name="AT WORK", right=True),
    Column(name="READY", right=True),
    Column(name="STARTING", right=True),
    Column(name="WAITING", right=True),
    Column(name="WANTED", folds=True),
)
Config = Annotated[str, typer.Argument(metavar="AGENT", help="An agent of agents.yml.")]
Rehearsed = Annotated[
    Path | None,
    typer.Option(
        "--rehearse",
        metavar="FILE",
        help="For runs that are rehearsed by this file: no login is asked for.",
        show_default=False,
    ),
]
AUTO = "auto"


def pool(*, repository: Folder = None, json: Json = False) -> None:
    """Agents of each kind: how many are at work, how many wait beforehand, how many there should be."""
    go(_pool(valid_configuration(repository), as_json=json))


def scale(
    config: Config,
    wanted: Annotated[str, typer.Argument(metavar="N|auto", help="So many at work and spare together, or as configured.")],
    *,
    rehearse: Rehearsed = None,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Have so many agents of a kind, started beforehand where there is no task for them yet; until you say otherwise.

    With 0 no agent of the kind begins anything; those at work finish. `auto` leaves it to `pool` in agents.yml.
    """
    number = None if wanted == AUTO else _number(wanted)
    go(_scale(configuration(repository), config, number, rehearse, as_json=json))


def deploy(
    config: Config,
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="A task that waits.", show_default=False)] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Whatever limits say, and whatever the task requires.")] = False,
    rehearse: Rehearsed = None,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Have one more agent of a kind stand ready; or give a task that waits to such an agent, before all others.

    A task that has an agent, or was given to one, is not given away a second time.
    """
    found = configuration(repository)
    if task is None:
        if force:
            raise UsageError("--force is for a task", remedy="`kapelle scale AGENT N` has so many agents of a kind.")
        go(_scale(found, config, 1, rehearse, more=True, as_json=json))
        return
    go(_deploy(found, config, task, force=force, as_json=json))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > len("1000") or int(text) > MOST:
        raise UsageError(f"{text!r} is no number of agents", remedy=f"Write a whole number up to {MOST}, or {AUTO}.")
    return int(text)


MOST = 1000
"""Agents of a kind that can be asked for."""


async def _pool(found: Configuration, *, as_json: bool) -> None:
    async with compose.open_reader(found) as reader:
        all_of_them = await reader.store.read(stands)
        now, leader = reader.clock.now(), await reader.leader()
    if as_json:
        print_json([stand_json(stand, now) for stand in all_of_them])
        return
    if not all_of_them:
        say("There are no agents, and none are asked for.")
        return
    print_table(out(), COLUMNS, [_row(stand) for stand in all_of_them])
    if leader is None and any(stand.standing is not None or stand.spares or stand.at_work for stand in all_of_them):
        note("Nobody leads just now: none begins anything, and spares end. `kapelle resume --stay` leads.")


def _row(stand: Stand) -> tuple[str, ...]:
    numbers = (stand.at_work, stand.ready, len(stand.spares) - stand.ready, stand.waiting)
    return (stand.config, stand.project, *(str(number) for number in numbers), wanted_text(stand))


async def _scale(
    found: Configuration, name: str, wanted: int | None, rehearse: Path | None, *, more: bool = False, as_json: bool
) -> None:
    body = None if wanted else await _less(found, name, wanted)
    if body is None:
        document, workflow = single_task("-", agent=name, gate=None)
        # First whether there could be any: a login is no use where there cannot.
        spec = await prepare(found, document, workflow, inputs={}, check_only=True)
        if (
            why := not_beforehand(spec.config(name), compose.drivers()[spec.config(name).program], make_of(spec, name))
        ) is not None:
            raise why
        # To leave it to the configuration nothing needs to be reachable.
        if wanted:
            spec = await _reaching(found, document, workflow, rehearse, f"deploy {name}" if more else f"scale {name} {wanted}")
        make = make_of(spec, name)
        body = Scale(project=spec.project, config=name, wanted=wanted, more=more, spec=None if wanted is None else make)
    async with compose.open_desk(found) as desk:
        await desk.ask(body, principal(desk.world.store.store_id))
        stand = await _stand(desk, body.project, name)
        now, led = desk.world.clock.now(), await desk.leader() is not None
    if as_json:
        print_json(stand_json(stand, now) if stand is not None else None)
        return
    if wanted is None or stand is None or stand.standing is None:
        say(f"How many agents of {name} there are is as agents.yml says.")
        return
    there = f"{stand.at_work} at work, {counted(len(stand.spares), 'spare')}"
    say(f"{name}: {counted(stand.standing.wanted, 'agent')} wanted ({there} just now).")
    if not led:
        note("Nobody leads just now. `kapelle resume --stay` leads, and starts them.")


async def _reaching(
    found: Configuration, document: Document, workflow: models.Workflow, rehearse: Path | None, words: str
) -> RunSpec:
    """Return the run by which spares reach their model."""
    try:
        return await prepare(found, document, workflow, inputs={}, rehearse=rehearse)
    except CredentialsMissing as error:
        # What helps is an option of this very command.
        remedy = error.advice.replace("`kapelle run --rehearse FILE`", f"`kapelle {words} --rehearse FILE`")
        raise CredentialsMissing(str(error), remedy=remedy) from error


async def _less(found: Configuration, name: str, wanted: int | None) -> Scale | None:
    """Return what asks for none, or for as many as configured, of an agent that is known: its files may be gone since."""
    project = found.project.name or found.root.name
    async with compose.open_reader(found) as reader:
        there = [stand for stand in await reader.store.read(stands) if (stand.project, stand.config) == (project, name)]
    standing = there[0].standing if there else None
    if standing is None:
        return None
    return Scale(project=project, config=name, wanted=wanted, spec=None if wanted is None else standing.spec)


async def _stand(desk: Desk, project: str, config: str) -> Stand | None:
    found = await desk.world.store.read(stands)
    return next((stand for stand in found if (stand.project, stand.config) == (project, config)), None)


async def _deploy(found: Configuration, config: str, which: str, *, force: bool, as_json: bool) -> None:
    async with compose.open_desk(found, make=False) as desk:
        named = await desk.find(which)
        if named.task is None:
            raise UsageError(f"{which} is a run, not a task", remedy=f"`kapelle show {named.run.run_id}` lists its tasks.")
        body = Deploy(run_id=named.run.run_id, task_id=named.task.task_id, config=config, force=force)
        await desk.ask(body, principal(desk.world.store.store_id))
        led = await desk.leader() is not None
    if as_json:
        print_json({"task": named.task.task_id, "config": config, "forced": force})
        return
    say(f"{named.task.name} goes to {config}, before all others{', whatever limits say' if force else ''}.")
    if not led:
        note(f"Nobody leads just now. `kapelle resume {named.run.run_id}` works on it.")
