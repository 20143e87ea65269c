"""`status`, `list`, `show`, `logs` and `events`: what there is, read from the store; nothing is changed."""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from kapelle.apps import compose
from kapelle.apps.agents import found_agent
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import count_tokens, money, print_json, say
from kapelle.apps.cli.output import out, print_held_up, print_report, state_text
from kapelle.apps.cli.standing import print_health
from kapelle.apps.cli.tables import Column, print_hanging, print_table
from kapelle.apps.delivering import held_up, held_up_json
from kapelle.apps.health import health, health_json, system_health
from kapelle.apps.hindrances import hindrances, hindrances_json
from kapelle.apps.inbox import inbox, item_json
from kapelle.apps.reader import Found, Reader, has_ended
from kapelle.apps.reviewing import Review, review_json, review_of_task
from kapelle.apps.settings import Configuration
from kapelle.apps.views import (
    TaskReport,
    account_json,
    closed,
    done_text,
    entry_json,
    run_json,
    run_report,
    spend_json,
    task_json,
)
from kapelle.core.account import Account, account_of, told
from kapelle.core.durations import format_duration
from kapelle.core.errors import NotFound
from kapelle.core.events import PromptSent
from kapelle.core.ids import RunId
from kapelle.core.plain_text import shown, shown_block
from kapelle.core.store import Overview, View
from kapelle.core.task import Task, Wait

if TYPE_CHECKING:
    from kapelle.core.events import Entry

Which = Annotated[str, typer.Argument(metavar="RUN|TASK", help="An id, or enough of its beginning, or a name.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many at most.")]


def status(*, repository: Folder = None, json: Json = False) -> None:
    """Who leads, what runs, and what waits for you."""
    go(_status(repository, as_json=json))


def list_runs(*, limit: Limit = 20, repository: Folder = None, json: Json = False) -> None:
    """The runs, the newest first."""
    go(_list(repository, limit, as_json=json))


def show(which: Which, *, repository: Folder = None, json: Json = False) -> None:
    """A run with its tasks, or one task with its attempts, checks and changes.

    GATE is the gate's name with its verdict (✓ passed, ✗ did not);
    ↺2: work went back from it to the agent twice; ⇄1: once from the merge queue.
    """
    go(_show(repository, which, as_json=json))


def logs(
    which: Annotated[
        str,
        typer.Argument(metavar="RUN|TASK|AGENT", help="An id, or enough of its beginning, or a name; also RUN/TASK."),
    ],
    *,
    prompts: Annotated[bool, typer.Option("--prompts", help="Show the prompts in full.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is said, until it has ended.")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """What a task's agents said and did, and what its checks printed. Of an agent: its task, until that agent has ended."""
    go(_logs(repository, which, prompts=prompts, follow=follow, as_json=json))


def events(
    which: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Default: all runs.")] = None,
    *,
    after: Annotated[int, typer.Option("--after", min=0, help="Only those after this sequence number.")] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as more happens; of a run, until it has ended.")
    ] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """The event log: every fact, in order. With --json one event per line."""
    go(_events(repository, which, after=after, follow=follow, as_json=json))


def _print_left_behind(console: Console, asked: int, gone: int) -> None:
    """Say what nobody has looked at since somebody was killed: requests, and agents that have ended."""
    if asked:
        what = "1 request was" if asked == 1 else f"{asked} requests were"
        console.print(Text(f"{what} made by somebody who ended before that was applied: kapelle resume", style="yellow"))
    if gone:
        whose = "1 agent has ended" if gone == 1 else f"{gone} agents have ended"
        console.print(Text(f"{whose}, and nobody has looked at what was done: kapelle resume", style="yellow"))


async def _status(folder: Path | None, *, as_json: bool) -> None:
    found = valid_configuration(folder)
    async with compose.open_reader(found) as reader:
        lead = await reader.leader()
        overviews = await reader.store.read(lambda view: view.runs.overviews([run.run_id for run in view.runs.open()]))
        held = await reader.store.read(lambda view: held_up(view, view.runs.open()))
        agents = await reader.store.read(lambda view: view.agents.live())
        live = sum(1 for agent in agents if reader.alive(agent))
        # Whoever leads is just starting or reading those that are no processes; without a leader nobody is.
        gone = len(agents) - live if lead is None else 0
        # Whoever leads applies them at once.
        asked = len(await reader.store.read(lambda view: view.requests.open())) if lead is None else 0
        waiting = await reader.store.read(_waiting)
        items = await reader.store.read(inbox)
        accounts = await reader.store.read(_accounts)
        goes = await reader.store.read(lambda view: health(view, reader.clock.now(), led=lead is not None))
        system = await system_health(found, lead, reader.clock.now())
        if as_json:
            print_json(
                {
                    "leader": {"pid": lead.holder.pid, "term": lead.term} if lead is not None else None,
                    "agents": live,
                    "agents_gone": gone,
                    "requests_open": asked,
                    "slots": found.settings.slots,
                    "runs": [_overview_json(entry, reader.clock.now()) for entry in overviews],
                    "waiting_for_approval": [
                        {"id": task.task_id, "name": task.name, "review": review_json(review) if review is not None else None}
                        for task, review in waiting
                    ],
                    "inbox": [item_json(item) for item in items],
                    "held_up": [held_up_json(entry) for entry in held],
                    "accounts": [account_json(account) for account in accounts],
                    "health": health_json(goes, system),
                }
            )
            return
        console = out()
        leads = f"process {lead.holder.pid} leads (term {lead.term})" if lead is not None else "nobody leads"
        for item in items:
            if item.kind == "halt":
                console.print(Text(shown(f" HALTED  {item.why}"), style="bold white on red"), soft_wrap=True)
        console.print(f"{leads} · {live}/{found.settings.slots} agents live")
        if overviews:
            _print_overviews(console, overviews, reader.clock.now())
            if lead is None:
                console.print(Text("Nothing goes on while nobody leads: kapelle resume", style="yellow"))
        else:
            console.print("No run is open.")
        print_health(console, goes, system, reader.clock.now())
        _print_left_behind(console, asked, gone)
        for entry in held:
            print_held_up(console, entry)
        for account in accounts:
            print_hanging(console, Text(), shown(told(account)), "yellow")
        for item in items:
            if item.kind == "question":
                _print_asked(console, f"{item.name} asks: {item.what}", f"kapelle answer {item.item_id} allow|deny|always")
            elif item.kind == "budget":
                what = f"the budget of {item.name}: {item.what}"
                _print_asked(console, what, f"kapelle answer {item.item_id} raise AMOUNT, or stop")
        for task, review in waiting:
            if review is None:
                _print_asked(console, f"{task.name} waits for your approval", f"kapelle approve {task.task_id}")
            else:
                console.print(Text(review.text, style="yellow"), soft_wrap=True)


def _print_asked(console: Console, what: str, command: str) -> None:
    """Print what a person is asked, and how to answer: in a line, or the command in one of its own, to be copied whole."""
    line = f"{what}: {command}"
    if not sys.stdout.isatty() or cell_len(shown(line)) <= console.width:
        console.print(Text(shown(line), style="yellow"), soft_wrap=True)
        return
    print_hanging(console, Text(), shown(what), "yellow")
    console.print(Text(f"  → {command}", style="yellow"), soft_wrap=True)


def _accounts(view: View) -> list[Account]:
    """Return the accounts that keep agents of open runs from starting."""
    used = {account_of(run.spec.upstream).account_id for run in view.runs.open()}
    return [account for account in view.accounts.not_open() if account.account_id in used]


def _waiting(view: View) -> list[tuple[Task, Review | None]]:
    """Return the tasks that wait for a person, each with the change that it waits for, when that is why."""
    asking = {question.task_id for question in view.questions.open()}
    tasks = [
        task for run in view.runs.open() for task in view.tasks.waiting(run.run_id, Wait.APPROVAL) if task.task_id not in asking
    ]
    return [(task, review_of_task(view, task.task_id, task.name)) for task in tasks]


def _overview_json(entry: Overview, now: datetime) -> dict[str, Any]:
    run = entry.run
    return {
        "id": run.run_id,
        "name": run.spec.name,
        "state": run.state.value,
        "paused": run.paused,
        "closed": closed(run, now) or None,
        "tasks": {state.value: count for state, count in entry.counts},
        **spend_json(entry.spend),
        "submitted_at": run.submitted_at.isoformat(),
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
    }


OVERVIEW = (
    Column(name="RUN"),
    Column(name="NAME", folds=True),
    Column(name="STATE", folds=True),
    Column(name="DONE", folds=True),
    Column(name="COST", right=True),
    Column(name="AGE", right=True),
)


def _print_overviews(console: Console, overviews: Sequence[Overview], now: datetime) -> None:
    rows: list[Sequence[str | Text]] = []
    for entry in overviews:
        run = entry.run
        state = state_text(run.state.value, "(paused)" if run.paused else "")
        age = format_duration(now - run.submitted_at)
        cost = money(entry.spend.cost_usd) if entry.spend.calls else ""
        rows.append((run.run_id, run.spec.name, state, done_text(entry.counts), cost, age))
    print_table(console, OVERVIEW, rows)
    for entry in overviews:
        if why := closed(entry.run, now):
            print_hanging(console, Text(), shown(f"{entry.run.spec.name} waits: {why}"), "yellow")


async def _list(folder: Path | None, limit: int, *, as_json: bool) -> None:
    async with compose.open_reader(valid_configuration(folder)) as reader:
        overviews = await reader.store.read(lambda view: view.runs.overviews(limit=limit))
        if as_json:
            print_json([_overview_json(entry, reader.clock.now()) for entry in overviews])
        elif overviews:
            _print_overviews(out(), overviews, reader.clock.now())
        else:
            say("There are no runs yet. `kapelle run WORKFLOW` starts one.")


async def _show(folder: Path | None, which: str, *, as_json: bool) -> None:
    async with compose.open_reader(valid_configuration(folder)) as reader:
        found = await reader.find(which)
        report = await reader.store.read(lambda view: run_report(view, found.run.run_id))
        if report is None:
            raise NotFound(f"nothing has the id {which}")
        now = reader.clock.now()
        if found.task is None:
            print_json(run_json(report, now)) if as_json else print_report(report, now)
            return
        task = found.task
        entry = next(entry for entry in report.tasks if entry.task.task_id == task.task_id)
        hindered = await reader.store.read(lambda view: hindrances(view, task.run_id, task.task_id))
        if as_json:
            print_json({**task_json(entry, now), "hindrances": hindrances_json(hindered)})
            return
        _print_task(entry, found, now)
        for each in hindered:
            out().print(Text(f"{each.title}: {each.times}", style="yellow"))
            for words in each.last:
                out().print(Text(f"  {shown(words)}"), soft_wrap=True)


def _print_task(entry: TaskReport, found: Found, now: datetime) -> None:
    console, task = out(), entry.task
    note = f"({task.waits_for.value})" if task.waits_for is not None else ""
    console.print(Text.assemble((task.name, "bold"), f"  {task.task_id}  ", state_text(task.state.value, note)))
    console.print(f"run {found.run.run_id} ({found.run.spec.name}) · agent {entry.agent} · {task.spec.priority.value}")
    if entry.sandbox:
        console.print(f"sandbox: {entry.sandbox}")
    if task.detail:
        console.print(Text(shown_block(task.detail), style="dim"))
    if entry.review is not None:
        console.print(Text(entry.review.text, style="yellow"), soft_wrap=True)
    if task.failure is not None:
        console.print(Text(shown_block(f"{task.failure.kind}: {task.failure.message}"), style="red"))
    if task.summary:
        console.print(Text(shown_block(task.summary)))
    if task.result is not None:
        console.print(Text(f"result: {task.result}"))
    for attempt in entry.attempts:
        ended = format_duration((attempt.ended_at or now) - attempt.started_at)
        outcome = attempt.outcome.value if attempt.outcome is not None else "open"
        console.print(
            f"attempt {attempt.number}: {outcome} · {ended} · {attempt.tool_calls} tool calls · "
            f"{attempt.gate_rounds} back from the gate · {attempt.merge_returns} back from the merge queue"
        )
    if entry.receipt is not None:
        console.print(f"gate {entry.receipt.gate}: passed on tree {entry.receipt.tree[:10]}")
        if entry.change is not None and entry.change.red:
            console.print(Text(f"merged: {shown(entry.change.note)}", style="red"))
        for check in entry.receipt.checks:
            console.print(f"  {check.name}: {check.state.value} ({check.seconds:.1f}s)  {shown(check.run)}")
    spend = entry.spend
    if spend.calls:
        tokens = count_tokens(spend.usage.total)
        console.print(f"{spend.calls} model calls · {tokens} tokens · {money(spend.cost_usd)}")
    if task.commit:
        console.print(f"commit {task.commit}")


async def _logs(folder: Path | None, which: str, *, prompts: bool, follow: bool, as_json: bool) -> None:
    await tell_logs(valid_configuration(folder), which, prompts=prompts, follow=follow, as_json=as_json)


async def tell_logs(
    configured: Configuration, which: str, *, prompts: bool = False, follow: bool = True, as_json: bool = False
) -> None:
    """Print what was said and done; *follow* it until it has ended."""
    from kapelle.apps.cli.telling import line_of

    async with compose.open_reader(configured) as reader:
        found = await reader.store.read(lambda view: found_agent(view, which))
        names = await _names(reader, found.run.run_id)
        sent: set[str] = set()
        async for entry in _entries(reader, found, 0, follow=follow):
            if found.task is not None and entry.event.task_id != found.task.task_id:
                continue
            again = isinstance(entry.event, PromptSent) and entry.event.prompt_id in sent
            if isinstance(entry.event, PromptSent):
                sent.add(entry.event.prompt_id)
            if as_json:
                print_json(entry_json(entry))
                continue
            for line in line_of(entry.event, names, whole=True, prompts=prompts, again=again):
                _print_line(entry, line)


def _print_line(entry: "Entry", line: str) -> None:
    sys.stdout.write(f"{entry.at.astimezone():%H:%M:%S} {line}\n")
    sys.stdout.flush()


async def _names(reader: Reader, run_id: RunId | None) -> dict[str, str]:
    if run_id is None:
        return {}
    tasks = await reader.store.read(lambda view: view.tasks.of_run(run_id))
    return {task.task_id: task.name for task in tasks}


def _entries(reader: Reader, found: Found | None, after: int, *, follow: bool) -> "AsyncIterator[Entry]":
    """Return the events of what was found (or all): as many as there are or, to *follow* it, all until it has ended."""

    def over(view: View) -> bool:
        return not follow or (found is not None and has_ended(view, found))

    return reader.events(after, found.run.run_id if found is not None else None, over=over)


async def _events(folder: Path | None, which: str | None, *, after: int, follow: bool, as_json: bool) -> None:
    async with compose.open_reader(valid_configuration(folder)) as reader:
        # A task stands for its run here.
        found = Found(run=(await reader.find_run(which)).run) if which is not None else None
        names = await _names(reader, found.run.run_id if found is not None else None)
        async for entry in _entries(reader, found, after, follow=follow):
            if as_json:
                print_json(entry_json(entry))
                continue
            name = names.get(entry.event.task_id or "", entry.event.task_id or entry.event.run_id or "")
            details = " ".join(f"{key}={value}" for key, value in _details(entry))
            told_of = shown(f"{name} {details}")
            sys.stdout.write(f"{entry.seq:>6} {entry.at.astimezone():%H:%M:%S.%f} {entry.event.kind:<20} {told_of}\n")
            sys.stdout.flush()


def _details(entry: "Entry") -> Iterator[tuple[str, str]]:
    for key, value in entry_json(entry).items():
        if key in {"seq", "at", "term", "kind", "run_id", "task_id"} or value in ("", None, [], {}):
            continue
        text = " ".join(str(value).split())
        yield key, text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004  # one line of a terminal
