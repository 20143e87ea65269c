"""`halt` and `unhalt`: the off switch."""

from pathlib import Path
from typing import Annotated

import typer

from kapelle.apps import compose
from kapelle.apps import steering as asks
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import print_json, say, say_nobody_leads
from kapelle.core.plain_text import counted

Why = Annotated[str, typer.Option("--reason", help="Why; everybody is told.")]


def halt(*, reason: Why = "", repository: Folder = None, json: Json = False) -> None:
    """Stop everything: no model call passes and no agent works, in any run, until `kapelle unhalt`.

    Agents go on in their conversations then; nothing is lost, and no attempt is counted. Gates and merges go on. Only a person
    can.
    """
    go(_halt(repository, reason, as_json=json))


def unhalt(*, reason: Why = "", repository: Folder = None, json: Json = False) -> None:
    """Let everything go on that `kapelle halt` has stopped. Only a person can."""
    go(_unhalt(repository, reason, as_json=json))


async def _halt(folder: Path | None, reason: str, *, as_json: bool) -> None:
    # An off switch holds for whatever comes, also where nothing was ever submitted.
    async with compose.open_desk(valid_configuration(folder)) as desk:
        await asks.halt(desk, reason)
        led = await desk.leader() is not None
    if as_json:
        print_json({"halted": True, "led": led})
        return
    say("Halted: nothing calls a model until `kapelle unhalt`.")
    if not led:
        say("Nobody leads just now; it holds for whoever does.")


async def _unhalt(folder: Path | None, reason: str, *, as_json: bool) -> None:
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        await asks.unhalt(desk, reason)
        led = await desk.leader() is not None
        left = await desk.world.store.read(lambda view: len(view.runs.open()))
    if as_json:
        print_json({"halted": False, "led": led})
        return
    say("Everything goes on." if led else "Nothing is halted any more.")
    if left and not led:
        say_nobody_leads(f"{counted(left, 'open run')} can go on")
