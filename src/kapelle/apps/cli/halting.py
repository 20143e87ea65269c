"""`halt` and `unhalt`: the off switch."""

from pathlib import Path
from typing import Annotated

import typer

from kapelle.apps import compose
from kapelle.apps.cli.common import Folder, Json, configuration, go
from kapelle.apps.cli.output import out, print_json, print_nobody_leads
from kapelle.apps.principal import principal
from kapelle.core.ids import RunId
from kapelle.core.plain_text import counted
from kapelle.core.requests import Body, Halt, Unhalt

Why = Annotated[str, typer.Option("--reason", help="Why; everybody is told.")]
NONE = RunId("")


def halt(*, reason: Why = "", repository: Folder = None, json: Json = False) -> None:
    """Stop everything: no model call passes and no agent works, in any run, until `kapelle unhalt`.

    Agents go on in their conversations then; nothing is lost, and no attempt is counted. Gates and merges go on. Only a person
    can.
    """
    go(
        _ask(
            repository, Halt(run_id=NONE, reason=reason), "Halted: nothing calls a model until `kapelle unhalt`.", as_json=json
        )
    )


def unhalt(*, reason: Why = "", repository: Folder = None, json: Json = False) -> None:
    """Let everything go on that `kapelle halt` has stopped. Only a person can."""
    go(_ask(repository, Unhalt(run_id=NONE, reason=reason), "Everything goes on.", as_json=json))


async def _ask(folder: Path | None, body: Body, done: str, *, as_json: bool) -> None:
    # An off switch holds for whatever comes, also where nothing was ever submitted.
    async with compose.open_desk(configuration(folder), make=isinstance(body, Halt)) as desk:
        await desk.ask(body, principal(desk.world.store.store_id))
        led = await desk.leader() is not None
        left = await desk.world.store.read(lambda view: len(view.runs.open()))
    if as_json:
        print_json({"halted": isinstance(body, Halt), "led": led})
        return
    out().print(done if led or isinstance(body, Halt) else "Nothing is halted any more.")
    if isinstance(body, Halt) and not led:
        out().print("Nobody leads just now; it holds for whoever does.")
    elif left and not led:
        print_nobody_leads(f"{counted(left, 'open run')} can go on")
