"""`explain`: why a task waits, or why it went where it went."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from kapelle.apps import compose
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import print_json
from kapelle.apps.cli.output import out, state_text
from kapelle.apps.cli.tables import Column, print_hanging, print_table
from kapelle.apps.explaining import Decision, Explanation, around_of, explain, explanation_json, facts, score_text
from kapelle.core.durations import format_duration
from kapelle.core.errors import UsageError
from kapelle.core.task import TERMINAL

# What CHANGES says may be a command to copy: it is never folded.
REASONS = (Column(name="RULE"), Column(name="WHAT", folds=True), Column(name="CHANGES"))
AHEAD = (Column(name="TASK"), Column(name="RUN"), Column(name="WHY IT GOES FIRST", folds=True))
CONSIDERED = (
    Column(name="AGENT"),
    Column(name="HOST"),
    Column(name="SCORE", right=True),
    Column(name="WHY NOT", folds=True),
)


def explain_task(
    which: Annotated[str, typer.Argument(metavar="TASK", help="An id, or enough of its beginning, or a name.")],
    *,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Why a task waits: every rule that holds it up, and who goes first; or why it went to the agent that it has."""
    go(_explain(repository, which, as_json=json))


async def _explain(folder: Path | None, which: str, *, as_json: bool) -> None:
    found = valid_configuration(folder)
    async with compose.open_reader(found) as reader:
        named = await reader.find(which)
        task = named.task
        if task is None:
            raise UsageError(f"{which} is a run, not a task", remedy=f"`kapelle show {named.run.run_id}` lists its tasks.")
        around = await around_of(found)
        led, now = await reader.leader() is not None, reader.clock.now()
        told = await reader.store.read(lambda view: explain(view, task, named.run, around, now, led=led))
    print_json(explanation_json(told)) if as_json else _print(told)


def _print(told: Explanation) -> None:
    console, task = out(), told.task
    note = f"({task.waits_for.value})" if task.waits_for is not None else ""
    console.print(Text.assemble((task.name, "bold"), f"  {task.task_id}  ", state_text(task.state.value, note)))
    print_hanging(console, Text(), " · ".join(f"{name}: {value}" for name, value in facts(told)), "dim")
    if told.reasons:
        print_table(console, REASONS, [(each.rule, each.detail, each.changes) for each in told.reasons])
    elif told.turn is not None and task.state not in TERMINAL:
        console.print("No rule holds it up: it goes when its turn comes.")
    if told.turn is not None:
        count = f"more than {told.turn.count}" if told.turn.more else str(told.turn.count or "none")
        console.print(f"Tasks that go first: {count}")
        if told.turn.first:
            print_table(console, AHEAD, [(each.name, each.run_id, each.why) for each in told.turn.first])
    for decision in told.decisions:
        _print_decision(console, told, decision)
    if not told.reasons and told.turn is None and not told.decisions:
        console.print("It has ended without an agent." if task.state in TERMINAL else "Nothing holds it up.")


def _print_decision(console: Console, told: Explanation, decision: Decision) -> None:
    waited = format_duration(decision.at - told.task.submitted_at)
    where = f"{decision.config} on {decision.host}"
    console.print(f"attempt {decision.number}: {where}, {waited} after it was submitted")
    print_hanging(console, Text("  "), score_text(decision.considered, decision.strategy), "dim")
    rows = [
        (each.config, each.host, "" if each.score is None else f"{each.score:.2f}", each.refusal)
        for each in decision.considered
    ]
    if len(rows) > 1:
        print_table(console, CONSIDERED, rows)
