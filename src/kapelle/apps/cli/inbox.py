"""`inbox` and `answer`: what waits for a person, and what the person says."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from kapelle.apps import compose
from kapelle.apps import steering as asks
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import print_json, say, say_nobody_leads
from kapelle.apps.cli.output import out
from kapelle.apps.cli.standing import print_alerts
from kapelle.apps.cli.tables import Column, print_table
from kapelle.apps.inbox import Item, Said, alert_item, item_json
from kapelle.apps.inbox import inbox as look
from kapelle.core.durations import format_duration
from kapelle.core.plain_text import shown
from kapelle.core.question import AnswerKind
from kapelle.core.spent import SpentAnswer


class Word(StrEnum):
    """Whatever may be said."""

    ALLOW = "allow"
    DENY = "deny"
    ALWAYS = "always"
    RAISE = "raise"
    STOP = "stop"


INBOX = (
    Column(name="ID"),
    Column(name="FOR"),
    Column(name="WHAT", folds=True, least=30),
    Column(name="WHY", folds=True, least=20),
    Column(name="UNTIL"),
    Column(name="ANSWERS"),
)


def inbox(*, repository: Folder = None, json: Json = False) -> None:
    """Everything that waits for you: questions of agents, spent budgets, approvals, protected changes, accounts, targets."""
    go(_inbox(repository, as_json=json))


def answer(
    which: Annotated[str, typer.Argument(metavar="ID", help="An id of `kapelle inbox`, or enough of its beginning.")],
    said: Annotated[
        Word,
        typer.Argument(
            metavar="allow|deny|always|raise|stop",
            help="always: this, and what the same rule asks, for the rest of the run. raise, stop: of a budget that is spent.",
        ),
    ],
    amount: Annotated[
        str,
        typer.Argument(
            metavar="[AMOUNT]",
            help="raise: BY how much the budget is raised, on top of what it was: 5 (US dollars), 2M (tokens), 50 (model"
            " calls), 30m (time).",
        ),
    ] = "",
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; the agent is told, and the log keeps it.")] = "",
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Answer something in the inbox. Only a person can: what an agent asks itself is refused.

    A budget that is spent: `raise AMOUNT` adds to it, and what waited goes on in its conversation; after `stop` it fails.
    """
    meant = AnswerKind(said.value) if said.value in set(AnswerKind) else SpentAnswer(said.value)
    go(_answer(repository, which, meant, reason, amount, as_json=json))


async def _inbox(folder: Path | None, *, as_json: bool) -> None:
    async with compose.open_reader(valid_configuration(folder)) as reader:
        items = await reader.store.read(look)
        led = await reader.leader() is not None
        alerts = await reader.store.read(lambda view: view.standings.alerts()) if led else ()
        now = reader.clock.now()
    if as_json:
        print_json([item_json(item) for item in (*items, *map(alert_item, alerts))])
        return
    console = out()
    if items:
        print_items(console, items, now)
        questions = any(item.kind == "question" for item in items)
        budgets = any(item.kind == "budget" for item in items)
        # A halt has its own way out, in its row.
        if questions or any(item.kind not in {"budget", "halt"} for item in items):
            console.print(Text("kapelle answer ID allow|deny|always", style="dim"))
        if budgets:
            console.print(Text("kapelle answer ID raise AMOUNT, or stop", style="dim"))
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
        " ".join(kind.value for kind in item.answers) or item.otherwise,
    )


async def _answer(folder: Path | None, which: str, said: Said, reason: str, amount: str, *, as_json: bool) -> None:
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        item = await asks.answer(desk, which, said, reason=reason, amount=amount)
        led = await desk.leader() is not None
    if as_json:
        print_json({"id": item.item_id, "name": item.name, "answer": said.value, "led": led})
        return
    say(answered(item, said, amount, led=led))
    if isinstance(said, SpentAnswer) and not led:
        say_nobody_leads("what waited goes on" if said is SpentAnswer.RAISE else "its workspaces are cleared away")


def answered(item: Item, said: Said, amount: str = "", *, led: bool = True) -> str:
    """Say what was answered, and what comes of it at once, where somebody leads."""
    if isinstance(said, SpentAnswer):
        raised = f"raised by {amount}" + ("; what waited goes on" if led else "")
        done = raised if said is SpentAnswer.RAISE else "stopped; what waited has failed, its work is kept"
        return shown(f"The budget of {item.name} is {done}.")
    done = {AnswerKind.ALLOW: "Allowed", AnswerKind.DENY: "Denied", AnswerKind.ALWAYS: "Always allowed in this run"}[said]
    return shown(f"{done}: {item.name}: {item.what}")
