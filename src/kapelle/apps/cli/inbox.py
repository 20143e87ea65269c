"""`inbox` and `answer`: what waits for a person, and what the person says."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from kapelle.apps import compose
from kapelle.apps.cli.common import Folder, Json, configuration, go
from kapelle.apps.cli.output import out, print_json
from kapelle.apps.cli.standing import print_alerts
from kapelle.apps.cli.tables import Column, print_table
from kapelle.apps.inbox import Item, answer_to, item_json
from kapelle.apps.inbox import inbox as look
from kapelle.apps.principal import principal
from kapelle.core.durations import format_duration
from kapelle.core.plain_text import shown
from kapelle.core.question import AnswerKind

INBOX = (
    Column(name="ID"),
    Column(name="FOR"),
    Column(name="WHAT", folds=True, least=30),
    Column(name="WHY", folds=True, least=20),
    Column(name="UNTIL"),
    Column(name="ANSWERS"),
)


def inbox(*, repository: Folder = None, json: Json = False) -> None:
    """Everything that waits for you: questions of agents, approvals, protected changes, accounts, targets."""
    go(_inbox(repository, as_json=json))


def answer(
    which: Annotated[str, typer.Argument(metavar="ID", help="An id of `kapelle inbox`, or enough of its beginning.")],
    said: Annotated[
        AnswerKind,
        typer.Argument(metavar="allow|deny|always", help="always: this, and what the same rule asks, for the rest of the run."),
    ],
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; the agent is told.")] = "",
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Answer something in the inbox. Only a person can: what an agent asks itself is refused."""
    go(_answer(repository, which, said, reason, as_json=json))


async def _inbox(folder: Path | None, *, as_json: bool) -> None:
    async with compose.open_reader(configuration(folder)) as reader:
        items = await reader.store.read(look)
        led = await reader.leader() is not None
        alerts = await reader.store.read(lambda view: view.standings.alerts()) if led else ()
        now = reader.clock.now()
    if as_json:
        print_json([item_json(item) for item in items])
        return
    console = out()
    if items:
        print_items(console, items, now)
        console.print(Text("kapelle answer ID allow|deny|always", style="dim"))
    elif not alerts:
        console.print("Nothing waits for you.")
    print_alerts(console, alerts, now)


def print_items(console: Console, items: Sequence[Item], now: datetime) -> None:
    """Print what waits."""
    print_table(console, INBOX, [_row(item, now) for item in items])


def _row(item: Item, now: datetime) -> tuple[str | Text, ...]:
    until = ""
    if item.deadline_at is not None and item.default is not None:
        left = max(item.deadline_at - now, now - now)
        until = f"{format_duration(left)}, then {item.default.value}"
    return (
        Text(item.item_id, style="bold"),
        item.name,
        item.what,
        item.because,
        until,
        " ".join(kind.value for kind in item.answers),
    )


async def _answer(folder: Path | None, which: str, said: AnswerKind, reason: str, *, as_json: bool) -> None:
    async with compose.open_desk(configuration(folder), make=False) as desk:
        item, body = await desk.world.store.read(lambda view: answer_to(view, which, said, reason))
        await desk.ask(body, principal(desk.world.store.store_id))
    if as_json:
        print_json({"id": item.item_id, "name": item.name, "answer": said.value})
        return
    done = {AnswerKind.ALLOW: "Allowed", AnswerKind.DENY: "Denied", AnswerKind.ALWAYS: "Always allowed in this run"}[said]
    out().print(shown(f"{done}: {item.name}: {item.what}"))
