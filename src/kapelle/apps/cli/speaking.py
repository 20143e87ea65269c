"""`send`: what a person says to an agent, in its conversation."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kapelle.apps import compose
from kapelle.apps.agents import agent_named
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import print_json, say, say_nobody_leads
from kapelle.apps.cli.steering import Which
from kapelle.apps.steering import speak, task_of
from kapelle.core.errors import UsageError

LONGEST = 4_000_000
"""Bytes of what is said at once: more than any model takes in."""


def send(
    which: Which,
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="What to say; without it, or with -, standard input is.")
    ] = None,
    *,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Say something to an agent: the next thing that it hears when its turn is over, before its work is checked."""
    go(_send(which, said(text), repository, as_json=json))


def said(text: str | None) -> str:
    """Return *text*, or all of standard input where there is none, to the letter.

    Raises:
        UsageError: there is nothing, too much, or it is no text.
    """
    if text is None or text == "-":
        if sys.stdin.isatty():
            raise UsageError("there is nothing to say", remedy="Give the text as the last argument, or in a pipe.")
        data = sys.stdin.buffer.read(LONGEST + 1)
        try:
            text = data[:LONGEST].decode() if len(data) <= LONGEST else None
        except UnicodeDecodeError as error:
            raise UsageError("what is to be said is no UTF-8 text", remedy="Write it as UTF-8.") from error
        if text is None:
            raise UsageError(
                f"more than {LONGEST} bytes are too much to say at once",
                remedy="Put it in a file that the agent can read, and say where.",
            )
    if not text.strip():
        raise UsageError("there is nothing to say", remedy="Give the text as the last argument, or in a pipe.")
    return text


async def _send(which: str, text: str, folder: Path | None, *, as_json: bool) -> None:
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        agent = await desk.store.read(lambda view: agent_named(view, which))
        prompt_id = await speak(desk, agent, text)
        task = await desk.store.read(lambda view: task_of(view, agent))
        leads = await desk.leader() is not None
    if as_json:
        print_json({"id": agent.agent_id, "task": task, "prompt_id": prompt_id, "characters": len(text)})
        return
    say(f"{task} ({agent.agent_id}) hears it next.")
    if not leads:
        say_nobody_leads("it is said")
