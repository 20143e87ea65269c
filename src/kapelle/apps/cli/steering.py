"""`agents`, `freeze`, `thaw`, `stop` and `stop-all`: the agents at work, and what a person has to say about one of them."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from kapelle.apps import compose
from kapelle.apps import steering as asks
from kapelle.apps.agents import AgentReport, agent_json, agent_named, agents, spare_json
from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import count_tokens, money, note, print_json, say
from kapelle.apps.cli.output import out
from kapelle.apps.cli.tables import Column, print_table
from kapelle.apps.desk import Desk
from kapelle.apps.steering import task_of
from kapelle.core.agent import Agent, AgentState
from kapelle.core.durations import format_duration
from kapelle.core.errors import NotPossibleNow, UsageError
from kapelle.core.pool import Spare
from kapelle.core.requests import Pause

Which = Annotated[
    str, typer.Argument(metavar="AGENT", help="An agent's id, or enough of its beginning, or the task that it does.")
]

AGENTS = (
    Column(name="AGENT"),
    Column(name="CONFIG", folds=True),
    Column(name="TASK", folds=True),
    Column(name="STATE", folds=True),
    Column(name="HOST", folds=True),
    Column(name="SINCE", right=True),
    Column(name="TOKENS", right=True),
    Column(name="COST", right=True),
)
STYLES = {
    "active": "cyan",
    "frozen": "blue",
    "freezing": "blue",
    "taken over": "magenta",
    "stopping": "yellow",
    "stopped": "dim",
}


def list_agents(
    *,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended as well, the newest first.")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """The agents at work: what they are, what they do, since when, and what they have used so far."""
    go(_list(repository, everything=everything, as_json=json))


def freeze(which: Which, *, repository: Folder = None, json: Json = False) -> None:
    """Hold an agent still, with all that it has started. Its time limit stands still, too. `kapelle thaw` lets it go on."""
    go(_freeze(which, repository, as_json=json))


def thaw(which: Which, *, repository: Folder = None, json: Json = False) -> None:
    """Let a frozen agent go on."""
    go(_ask(which, asks.thaw, "Thawed", repository, as_json=json))


def stop(
    which: Which,
    *,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for the end of its turn (a minute at most).")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """End an agent. Its work and its conversation are kept, and its task waits until `kapelle resume TASK`."""
    go(_ask(which, partial(asks.stop, at_once=now), "Stopping", repository, as_json=json))


def stop_all(
    *,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for the ends of their turns (a minute at most).")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """End all agents and pause all open runs, so that none is started. `kapelle resume RUN` goes on with one."""
    go(_stop_all(repository, now=now, yes=yes, as_json=json))


async def _list(folder: Path | None, *, everything: bool, as_json: bool) -> None:
    async with compose.open_reader(valid_configuration(folder)) as reader:
        found = await reader.store.read(lambda view: agents(view, everything=everything))
        spares = await reader.store.read(lambda view: view.spares.all())
        now = reader.clock.now()
    if as_json:
        print_json([*(agent_json(report) for report in found), *map(spare_json, spares)])
    elif found or spares:
        print_table(out(), AGENTS, [*(_row(report, now) for report in found), *(_spare(spare, now) for spare in spares)])
    else:
        say("There was no agent yet." if everything else "No agent is at work.")


def _row(report: AgentReport, now: datetime) -> Sequence[str | Text]:
    agent, spend = report.agent, report.spend
    return (
        agent.agent_id,
        agent.config,
        report.task_name,
        Text(report.state, style=STYLES.get(report.state, "")),
        agent.host,
        format_duration((agent.stopped_at or now) - agent.created_at),
        count_tokens(spend.usage.total) if spend.calls else "",
        money(spend.cost_usd) if spend.calls else "",
    )


def _spare(spare: Spare, now: datetime) -> Sequence[str | Text]:
    state = Text(spare.stands.value, style="dim")
    return (spare.agent_id, spare.config.name, "", state, spare.host, format_duration(now - spare.created_at), "", "")


async def _freeze(which: str, folder: Path | None, *, as_json: bool) -> None:
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        agent = await desk.store.read(lambda view: agent_named(view, which))
        await asks.freeze(desk, agent)
        tell(agent, await desk.store.read(lambda view: task_of(view, agent)), "Frozen", as_json=as_json)


async def _ask(
    which: str, act: Callable[[Desk, Agent], Awaitable[None]], done: str, folder: Path | None, *, as_json: bool
) -> None:
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        agent = await desk.store.read(lambda view: agent_named(view, which))
        await act(desk, agent)
        tell(agent, await desk.store.read(lambda view: task_of(view, agent)), done, as_json=as_json)


def tell(agent: Agent, task: str, done: str, *, as_json: bool) -> None:
    """Print what was done about *agent*, which does *task*."""
    if as_json:
        print_json({"id": agent.agent_id, "task": task, "done": done.lower()})
    else:
        say(f"{done} {task} ({agent.agent_id}).")


async def _stop_all(folder: Path | None, *, now: bool, yes: bool, as_json: bool) -> None:
    async with compose.open_desk(valid_configuration(folder), make=False) as desk:
        found = await desk.store.read(lambda view: list(view.agents.live()))
        runs = await desk.store.read(lambda view: [run for run in view.runs.open() if not run.paused])
        if not found and not runs:
            print_json([]) if as_json else say("No agent is at work, and no run is open.")
            return
        if not yes:
            _confirm(len(found), len(runs))
        for run in runs:
            await desk.ask(Pause(run_id=run.run_id), asks.who(desk))
        stopped = [agent for agent in found if await _stopped(desk, agent, now=now)]
        names = {agent.agent_id: await desk.store.read(lambda view, agent=agent: task_of(view, agent)) for agent in stopped}
    if as_json:
        print_json([{"id": agent_id, "task": name, "done": "stopping"} for agent_id, name in names.items()])
        return
    for agent_id, name in names.items():
        say(f"Stopping {name} ({agent_id}).")
    for run in runs:
        say(f"Paused {run.spec.name} ({run.run_id}). It goes on with: kapelle resume {run.run_id}")


async def _stopped(desk: Desk, agent: Agent, *, now: bool) -> bool:
    """Ask for the end of *agent*; say no when it has ended by itself meanwhile, which is what was wanted."""
    try:
        await asks.stop(desk, agent, at_once=now)
    except NotPossibleNow:
        current = await desk.store.read(lambda view: view.agents.get(agent.agent_id))
        if current is not None and current.state is not AgentState.STOPPED:
            raise
        return False
    return True


def _confirm(count: int, runs: int) -> None:
    if not sys.stdin.isatty():
        raise UsageError("stop-all asks first, and nobody is there to answer", remedy="Say --yes.")
    noun, kind = ("agent is", "agents are")[count != 1], ("run", "runs")[runs != 1]
    note(f"{count} {noun} at work, and {runs} {kind} open. All agents are stopped, and the {kind} paused.")
    if not typer.confirm("Go on?"):
        raise typer.Abort
