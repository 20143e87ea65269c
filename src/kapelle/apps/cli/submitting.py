"""`run`, `submit`, `resume` and `retry`."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from kapelle.apps import compose
from kapelle.apps.cli.common import INTERRUPTED, Folder, Json, configuration, go, pairs
from kapelle.apps.cli.leading import stay_and_lead
from kapelle.apps.cli.lines import note, print_json, say
from kapelle.apps.cli.running import lead_until, stay
from kapelle.apps.desk import Desk
from kapelle.apps.isolating import unisolated
from kapelle.apps.principal import principal
from kapelle.apps.runs import held_by_account, prepare, require_secrets
from kapelle.apps.runs import submit as accept
from kapelle.apps.settings import Configuration
from kapelle.apps.views import run_json, run_report, sandbox_text
from kapelle.apps.workflows import read_workflow, single_task
from kapelle.core.errors import NotFound, NotPossibleNow, SecretMissing, UsageError
from kapelle.core.ids import RunId
from kapelle.core.plain_text import counted
from kapelle.core.requests import Resume, Retry
from kapelle.core.run import RUN_TERMINAL, Run, RunSpec, RunState
from kapelle.core.store import View
from kapelle.core.task import TERMINAL, Task
from kapelle.engine.leader import Stop

File = Annotated[Path | None, typer.Argument(help="A workflow file.", show_default=False)]
Prompt = Annotated[str | None, typer.Option("--prompt", "-p", help="Run one task with this prompt in place of a file.")]
AgentName = Annotated[str | None, typer.Option("--agent", help="The agent for --prompt.")]
GateName = Annotated[str | None, typer.Option("--gate", help="The gate for --prompt.")]
Inputs = Annotated[list[str] | None, typer.Option("--input", "-i", help="NAME=VALUE, for the workflow's inputs.")]
Rehearse = Annotated[
    Path | None, typer.Option("--rehearse", metavar="FILE", help="Let this rehearsal file answer in place of the model.")
]
Record = Annotated[
    Path | None, typer.Option("--record", metavar="FILE", help="Write what the model says as a rehearsal to this file.")
]
Target = Annotated[str | None, typer.Option("--target", help="The branch that changes go to.")]
Delivery = Annotated[str | None, typer.Option("--delivery", help="each, end or never.")]
Agents = Annotated[int | None, typer.Option("--agents", min=1, help="Agents that may be live at once for this run.")]
Budget = Annotated[float | None, typer.Option("--budget-usd", min=0.000001, help="What the run may spend.")]
GatewaySwitch = Annotated[bool | None, typer.Option("--gateway/--no-gateway", help="Reach the model through the gateway.")]


def run(
    file: File = None,
    *,
    prompt: Prompt = None,
    agent: AgentName = None,
    gate: GateName = None,
    inputs: Inputs = None,
    rehearse: Rehearse = None,
    record: Record = None,
    target: Target = None,
    delivery: Delivery = None,
    agents: Agents = None,
    budget_usd: Budget = None,
    gateway: GatewaySwitch = None,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Run a workflow (or one task) and stay until it has ended.

    Exit code 0 when everything completed, 1 when something failed, 2 when nothing was started, 3 when interrupted.
    """
    given = {"target": target, "delivery": delivery, "agents": agents, "budget_usd": budget_usd, "gateway": gateway}
    found = configuration(repository, **given)
    raise typer.Exit(go(_run(found, _Wanted(file, prompt, agent, gate, inputs, rehearse, record), as_json=json)))


def submit(
    file: File = None,
    *,
    prompt: Prompt = None,
    agent: AgentName = None,
    gate: GateName = None,
    inputs: Inputs = None,
    rehearse: Rehearse = None,
    record: Record = None,
    target: Target = None,
    delivery: Delivery = None,
    agents: Agents = None,
    budget_usd: Budget = None,
    gateway: GatewaySwitch = None,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Submit a workflow (or one task) and return at once; whoever leads works on it (`kapelle resume`)."""
    given = {"target": target, "delivery": delivery, "agents": agents, "budget_usd": budget_usd, "gateway": gateway}
    found = configuration(repository, **given)
    go(_submit_only(found, _Wanted(file, prompt, agent, gate, inputs, rehearse, record), as_json=json))


def resume(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN|TASK]", help="Default: all that have not ended.")] = None,
    *,
    stay: Annotated[bool, typer.Option("--stay", help="Lead until you end it, with or without runs.")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Go on with what was interrupted: lift a pause, lead when nobody does, stay until it has ended.

    Of a run, the pauses of its tasks are lifted, too; of a task that is paused, its own, and whoever leads goes on with it.

    With --stay it goes on leading when all has ended: what others submit is worked on, and spares wait for it.
    """
    if stay and run_id is not None:
        raise UsageError("--stay is for all runs", remedy="Leave out the run, or --stay.")
    found = configuration(repository)
    if stay:
        raise typer.Exit(go(stay_and_lead(found, as_json=json)))
    raise typer.Exit(go(_resume(found, run_id, as_json=json)))


def retry(
    which: Annotated[str, typer.Argument(metavar="RUN|TASK")],
    *,
    repository: Folder = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Submit it and return at once.")] = False,
    json: Json = False,
) -> None:
    """Submit again, as a new run, what is still not completed of a run (or one task and what failed for want of it).

    What an earlier retry has completed, or still works on, is not run a second time.
    """
    raise typer.Exit(go(_retry(configuration(repository), which, wait=not no_wait, as_json=json)))


class _Wanted:
    """What the command line asks for."""

    def __init__(
        self,
        file: Path | None,
        prompt: str | None,
        agent: str | None,
        gate: str | None,
        inputs: list[str] | None,
        rehearse: Path | None,
        record: Path | None,
    ) -> None:
        if (file is None) == (prompt is None):
            raise UsageError("give either a workflow file or --prompt", remedy="For example: kapelle run workflow.yml")
        if file is not None and (agent is not None or gate is not None):
            raise UsageError("--agent and --gate belong to --prompt", remedy="In a workflow file they are keys of its tasks.")
        if rehearse is not None and record is not None:
            raise UsageError("a rehearsal cannot be recorded", remedy="Leave out --rehearse or --record.")
        self.file = file
        self.prompt = prompt or ""
        self.agent = agent
        self.gate = gate
        self.inputs = pairs(inputs or [])
        self.rehearse = rehearse
        self.record = record


async def _spec(found: Configuration, wanted: _Wanted) -> RunSpec:
    if wanted.file is not None:
        document, workflow = read_workflow(wanted.file)
    else:
        if wanted.agent is None:
            names = ", ".join(found.agents.agents) or "none yet; `kapelle init` writes some"
            raise UsageError("--prompt needs an agent", remedy=f"Add --agent NAME; there are: {names}.")
        document, workflow = single_task(wanted.prompt, agent=wanted.agent, gate=wanted.gate)
    return await prepare(found, document, workflow, inputs=wanted.inputs, rehearse=wanted.rehearse, record=wanted.record)


async def _run(found: Configuration, wanted: _Wanted, *, as_json: bool) -> int:
    spec = await _spec(found, wanted)
    if reason := unisolated(spec, compose.sandboxes(), compose.drivers(), found.settings.sandbox):
        note(f"Nothing is isolated in this run ({reason}): agents and checks can do whatever you can.")
    async with compose.open_desk(found) as desk:
        run_id = await accept(desk, found, spec, principal(desk.world.store.store_id))
        if not as_json and not sys.stdout.isatty():
            say(f"run {run_id}: {spec.name}, {counted(len(spec.tasks), 'task')}, {sandbox_text(spec)}")
        return await _stay_and_print(desk, run_id, as_json=as_json)


async def _stay_and_print(desk: Desk, run_id: RunId, *, as_json: bool) -> int:
    code, report = await _stay(desk, run_id, as_json=as_json)
    if as_json:
        print_json(report)
    return code


async def _stay(desk: Desk, run_id: RunId, *, as_json: bool, resumed: bool = False) -> tuple[int, dict[str, Any]]:
    """Stay until the run has ended; print the report, unless as JSON; return the exit code and the report."""
    ended = await stay(desk, run_id, live=sys.stdout.isatty() and not as_json, quiet=as_json, resumed=resumed)
    report = await desk.world.store.read(lambda view: run_report(view, run_id))
    if report is None:
        raise NotFound(f"there is no run {run_id}")
    now = desk.world.clock.now()
    if not as_json:
        # A watcher has loaded it by now.
        from kapelle.apps.cli.output import print_report

        print_report(report, now)
    if not ended:
        if not as_json:
            note(f"Interrupted. Nothing is lost: `kapelle resume {run_id}` goes on.")
        return INTERRUPTED, run_json(report, now)
    return (0 if report.run.state is RunState.COMPLETED else 1), run_json(report, now)


async def _submit_only(found: Configuration, wanted: _Wanted, *, as_json: bool) -> None:
    spec = await _spec(found, wanted)
    if reason := unisolated(spec, compose.sandboxes(), compose.drivers(), found.settings.sandbox):
        note(f"Nothing is isolated in this run ({reason}): agents and checks can do whatever you can.")
    async with compose.open_desk(found) as desk:
        run_id = await accept(desk, found, spec, principal(desk.world.store.store_id))
        if as_json:
            print_json({"id": run_id, "name": spec.name, "tasks": len(spec.tasks)})
            return
        say(f"Submitted {run_id} ({spec.name}, {counted(len(spec.tasks), 'task')}, {sandbox_text(spec)}).")
        lead = await desk.leader()
        if lead is None:
            note(f"Nobody leads just now. `kapelle resume {run_id}` works on it.")


def _agents_left(view: View, run: Run) -> set[str]:
    left = [task for task in view.tasks.of_run(run.run_id) if task.state not in TERMINAL]
    return {name for task in left for name in task.spec.choices}


NOTHING = "There is nothing to resume."
CLEARED = 10.0
"""Seconds that are waited for workspaces once the agents in them have ended: what cannot be removed is tried again later."""


async def _clear_up(desk: Desk, *, quiet: bool) -> int:
    """End what a leader that is gone has left of runs that have ended since; return how many agents that were."""
    left = await desk.world.store.read(lambda view: len(view.agents.live()))
    if not left or await desk.leader() is not None:
        return 0
    if not quiet:
        note(f"No run is open. Ending what is left of others: {counted(left, 'agent')}.")
    patience: list[float] = []

    async def over() -> bool:
        agents, rooms = await desk.world.store.read(lambda view: (len(view.agents.live()), len(view.agents.workspaces())))
        if agents:
            return False
        patience.append(time.monotonic())
        return not rooms or patience[-1] - patience[0] > CLEARED

    await lead_until(desk, over, Stop(), note)
    return left


async def _resume(found: Configuration, prefix: str | None, *, as_json: bool) -> int:
    async with compose.open_desk(found, make=False) as desk:
        await desk.settle()
        runs, lifted = await _chosen(desk, prefix)
        if lifted is not None and await desk.leader() is not None:
            _tell_resumed(lifted, as_json=as_json)
            return 0
        if not runs:
            left = 0 if prefix is not None else await _clear_up(desk, quiet=as_json)
            if as_json:
                print_json([])
            else:
                say(f"{counted(left, 'agent')} of runs that have ended cleared away." if left else NOTHING)
            return 0
        if await desk.leader() is None:
            # Whoever leads looks them up: better now than by an attempt that fails.
            for entry in runs:
                left = await desk.world.store.read(lambda view, entry=entry: _agents_left(view, entry))
                try:
                    await require_secrets(found, entry.spec, left)
                except SecretMissing as error:
                    if len(runs) == 1:
                        raise
                    others = " ".join(str(other.run_id) for other in runs if other is not entry)
                    remedy = f"{error.advice} Or go on with the others alone: kapelle resume {others.split()[0]}"
                    raise SecretMissing(f"run {entry.run_id}: {error.message}", remedy=remedy) from error
        held = await desk.world.store.read(lambda view: held_by_account(view, runs, named=prefix is not None))
        held |= await desk.world.store.read(lambda view: _with_paused_tasks(view, runs if prefix and lifted is None else []))
        for entry in runs:
            if entry.paused or entry.state is RunState.DELIVERING or entry.run_id in held:
                await desk.ask(Resume(run_id=entry.run_id), principal(desk.world.store.store_id))
        codes: list[int] = []
        reports: list[dict[str, Any]] = []
        for entry in runs:
            if not as_json and not sys.stdout.isatty():
                say(f"run {entry.run_id}: {entry.spec.name} goes on")
            code, report = await _stay(desk, entry.run_id, as_json=as_json, resumed=True)
            codes.append(code)
            reports.append(report)
            if code == INTERRUPTED:
                break
        if as_json:
            print_json(reports if prefix is None else reports[0])
        return max(codes)


async def _chosen(desk: Desk, prefix: str | None) -> tuple[list[Run], Task | None]:
    """Return the runs to go on with (None: all), and the task whose pause was lifted, when it was a task that was meant."""
    if prefix is None:
        return list(await desk.world.store.read(lambda view: view.runs.open())), None
    target = await desk.find_run(prefix)
    run, task = target.run, target.task
    if run.state in RUN_TERMINAL:
        raise NotPossibleNow(
            f"run {run.run_id} has ended: {run.state.value}",
            remedy=f"`kapelle retry {run.run_id}` runs again what did not complete.",
        )
    if task is None or not task.paused:
        return [run], None
    await desk.ask(Resume(run_id=run.run_id, task_id=task.task_id), principal(desk.world.store.store_id))
    return [run], task


def _with_paused_tasks(view: View, runs: list[Run]) -> set[RunId]:
    """Return which of *runs* have tasks that are paused one by one."""
    paused = {run.run_id: [task for task in view.tasks.of_run(run.run_id) if task.paused] for run in runs}
    return {run_id for run_id, tasks in paused.items() if any(task.state not in TERMINAL for task in tasks)}


def _tell_resumed(task: Task, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": task.task_id, "name": task.name, "done": "resumed"})
    else:
        say(f"Resumed {task.name} ({task.task_id}).")


async def _retry(found: Configuration, which: str, *, wait: bool, as_json: bool) -> int:
    async with compose.open_desk(found, make=False) as desk:
        target = await desk.find(which)
        new = RunId(desk.world.new_id("r"))
        task_id = target.task.task_id if target.task is not None else None
        await desk.ask(Retry(run_id=target.run.run_id, new_run_id=new, task_id=task_id), principal(desk.world.store.store_id))
        if wait:
            return await _stay_and_print(desk, new, as_json=as_json)
        content: dict[str, Any] = {"id": new, "retry_of": target.run.run_id}
        print_json(content) if as_json else say(f"Submitted {new}.")
        return 0
