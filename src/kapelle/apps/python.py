"""The Python API: an orchestra from a program of one's own.

    async with Orchestrator("path/to/repository") as orchestra:
        task = await orchestra.submit_task(Task(prompt="Add a health check"))
        result = await orchestra.result(task)

While it is open, this process leads (or follows whoever leads already); leaving it lets the agents finish their turn. What was
submitted is durable: another process, or ``kapelle resume``, goes on with what has not ended.
"""

import asyncio
import inspect
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from kapelle.apps import compose, models
from kapelle.apps.desk import Desk
from kapelle.apps.inbox import Item, Said, answer_to, inbox
from kapelle.apps.principal import principal
from kapelle.apps.results import RunResult, Status, SubmittedTask, TaskResult
from kapelle.apps.runs import prepare, submit
from kapelle.apps.settings import Configuration, load
from kapelle.apps.views import RunReport, TaskReport, run_report
from kapelle.apps.workflows import read_workflow
from kapelle.core.account import told
from kapelle.core.errors import KapelleError, NotFound, UsageError
from kapelle.core.events import Entry
from kapelle.core.frozen import replace
from kapelle.core.ids import RunId, TaskId
from kapelle.core.question import AnswerKind
from kapelle.core.spent import SpentAnswer
from kapelle.core.task import TERMINAL
from kapelle.documents import Document
from kapelle.engine.leader import Stop

_LOG = logging.getLogger("kapelle")
ENDS = frozenset(f"task.{state.value}" for state in TERMINAL)
_LOOK = 0.05
"""Seconds between two looks at what another process may have written."""


class AgentConfig(models.Agent):
    """A configured kind of agent, as in ``agents.yml``, with its name."""

    name: str


class Task(models.Task):
    """One task, as in a workflow file, with its name."""

    name: str = Field(default="task", description="How it is called; unique in its workflow.")


class Workflow(models.Workflow):
    """A workflow, as in a file; ``Workflow.of`` makes one of tasks."""

    @classmethod
    def of(cls, name: str, tasks: Sequence[Task], **rest: Any) -> "Workflow":
        """Return a workflow of *tasks*; *rest* is whatever else a workflow file may hold (target, defaults, ...).

        Raises:
            UsageError: two tasks have the same name.
        """
        named: dict[str, dict[str, Any]] = {}
        for task in tasks:
            if task.name in named:
                raise UsageError(f"two tasks are called {task.name}", remedy="Give each task a name of its own.")
            named[task.name] = task.model_dump(exclude={"name"}, exclude_unset=True)
        return cls.model_validate({"name": name, "tasks": named, **rest})


def _document(workflow: Workflow) -> Document:
    return Document(f"workflow {workflow.name}", workflow.model_dump(mode="json", exclude_unset=True))


Completed = Callable[[TaskResult], Awaitable[None] | None]


class Orchestrator:
    """Runs tasks and workflows on agents; use it in ``async with``."""

    def __init__(
        self,
        repository: str | Path = ".",
        *,
        agents: Sequence[AgentConfig] = (),
        gates: Mapping[str, models.Gate] | None = None,
        rehearse: str | Path | None = None,
        record: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        """Take what is to be known beforehand.

        Args:
            repository: The repository to work on, or any directory.
            agents: Agents beside those of ``agents.yml``; one of the same name takes its place.
            gates: Gates beside those of ``agents.yml``.
            rehearse: A rehearsal file that answers in place of the model.
            record: A file to which is written what the model says.
            environment: In place of ``os.environ``.
            settings: What ``kapelle config`` lists, by name: ``target``, ``delivery``, ``slots``, ``budget_usd``, ...
        """
        self._place = Path(repository)
        self._agents = {agent.name: agent for agent in agents}
        self._gates = dict(gates or {})
        self._rehearse = Path(rehearse) if rehearse is not None else None
        self._record = Path(record) if record is not None else None
        self._environment = environment
        self._settings = settings
        self._stack = AsyncExitStack()
        self._desk_: Desk | None = None
        self._found: Configuration | None = None
        self._group: asyncio.TaskGroup | None = None
        self._leading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stop = Stop()
        self._callbacks: list[Completed] = []
        self._told: int | None = None
        """The newest event that callbacks were told of."""
        self._telling = asyncio.Lock()

    # --- Life ---

    async def __aenter__(self) -> Self:
        """Read the configuration, open the store and lead or follow.

        Raises:
            KapelleError: the configuration has mistakes or the store cannot be opened.
        """
        found = load(self._place, given=self._settings, environment=self._environment)
        self._found = self._with_own(found)
        self._desk_ = await self._stack.enter_async_context(compose.open_desk(self._found))
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._leading = self._group.create_task(self._lead(self._desk_))
        return self

    async def __aexit__(self, *error: object) -> None:
        """Let agents finish their turn (after an error: end them at once) and leave."""
        self._stop.asked.set()
        if any(error):
            self._stop.at_once.set()
        if self._leading is not None:
            await asyncio.wait([self._leading])
        if self._watching is not None:
            if not any(error):
                await self._tell_the_rest()
            self._watching.cancel()
        try:
            await self._stack.aclose()
        except BaseExceptionGroup as errors:
            if len(errors.exceptions) == 1 and isinstance(errors.exceptions[0], KapelleError):
                raise errors.exceptions[0] from errors
            raise

    async def _lead(self, desk: Desk) -> None:
        async def never() -> bool:
            return False

        await desk.lead_or_follow(never, self._stop)

    def _with_own(self, found: Configuration) -> Configuration:
        agents = {name: models.Agent.model_validate(entry.model_dump(exclude={"name"})) for name, entry in self._agents.items()}
        merged = found.agents.model_copy(
            update={"agents": {**found.agents.agents, **agents}, "gates": {**found.agents.gates, **self._gates}}
        )
        return replace(found, agents=merged)

    @property
    def _desk(self) -> Desk:
        if self._desk_ is None:
            raise UsageError("the orchestrator is not open", remedy="Use it in: async with Orchestrator(...) as orchestra")
        return self._desk_

    # --- Submitting ---

    async def submit_task(self, task: Task) -> SubmittedTask:
        """Submit *task* as a run of its own.

        Raises:
            KapelleError: something about it is wrong; nothing was submitted.
        """
        run_id = await self.submit_workflow(Workflow.of(task.name, [task]))
        report = await self._report(run_id)
        found = report.tasks[0].task
        return SubmittedTask(run_id=run_id, task_id=found.task_id, name=found.name)

    async def submit_workflow(self, workflow: Workflow | str | Path, inputs: Mapping[str, Any] | None = None) -> str:
        """Submit a workflow, or the workflow file at a path; return the id of its run.

        Raises:
            KapelleError: something about it is wrong; nothing was submitted.
        """
        desk = self._desk
        if self._found is None:
            raise UsageError("the orchestrator is not open", remedy="Use it in: async with Orchestrator(...) as orchestra")
        if isinstance(workflow, str | Path):
            document, model = read_workflow(Path(workflow))
        else:
            document, model = _document(workflow), workflow
        given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in (inputs or {}).items()}
        spec = await prepare(self._found, document, model, inputs=given, rehearse=self._rehearse, record=self._record)
        return await submit(desk, self._found, spec, principal(desk.world.store.store_id))

    async def execute_workflow(self, workflow: Workflow | str | Path, inputs: Mapping[str, Any] | None = None) -> RunResult:
        """Submit a workflow and wait until it has ended.

        Raises:
            KapelleError: something about it is wrong; nothing was submitted.
        """
        return await self.run_result(await self.submit_workflow(workflow, inputs))

    async def run_parallel(self, tasks: Sequence[Task], name: str = "parallel") -> RunResult:
        """Run *tasks* side by side, as one run, and wait until all have ended. Tasks without a name get one.

        Raises:
            KapelleError: something about them is wrong; nothing was submitted.
        """
        named = [
            task if "name" in task.model_fields_set else task.model_copy(update={"name": f"task-{number}"})
            for number, task in enumerate(tasks, start=1)
        ]
        return await self.execute_workflow(Workflow.of(name, named))

    # --- Waiting and looking ---

    async def result(self, task: SubmittedTask) -> TaskResult:
        """Wait until *task* has ended, and the target was moved as far as it could be; return how it ended."""
        if self._is_alone(await self._report(task.run_id)):
            await self.run_result(task.run_id)
        while True:
            report = await self._report(task.run_id)
            found = next((entry for entry in report.tasks if entry.task.task_id == task.task_id), None)
            if found is None:
                raise NotFound(f"the run {task.run_id} has no task {task.task_id}")
            if found.task.state in TERMINAL:
                return self._task_result(found)
            await asyncio.sleep(_LOOK)

    @staticmethod
    def _is_alone(report: RunReport) -> bool:
        return len(report.tasks) == 1

    async def run_result(self, run_id: str) -> RunResult:
        """Wait until a run has ended and return how; one whose target a person must clear first is not waited for.

        Raises:
            NotFound: there is no such run.
        """
        while True:
            report = await self._report(run_id)
            if await self._desk.ended([report.run.run_id]):
                return self._run_result(await self._report(run_id))
            await asyncio.sleep(_LOOK)

    async def get_status(self) -> Status:
        """Return what goes on."""
        desk = self._desk
        lead = await desk.leader()
        reports = await desk.world.store.read(lambda view: [run_report(view, run.run_id) for run in view.runs.open()])
        agents = await desk.world.store.read(lambda view: len(view.agents.live()))
        return Status(
            leader_pid=lead.holder.pid if lead is not None else None,
            agents=agents,
            slots=desk.world.settings.slots,
            runs=[self._run_result(report) for report in reports if report is not None],
            accounts=list(dict.fromkeys(told(report.account) for report in reports if report is not None and report.account)),
        )

    async def inbox(self) -> list[Item]:
        """Return everything that waits for a person: questions of agents, approvals, protected changes, accounts, targets."""
        return await self._desk.world.store.read(inbox)

    async def answer(self, item: Item | str, answer: Said | str, reason: str = "", amount: str = "") -> None:
        """Answer something in the inbox, named by itself or by its id: ``allow``, ``deny`` or ``always``.

        A budget that is spent is answered with ``raise``, by an *amount* as it is written in the files, or with ``stop``.

        Raises:
            NotFound: it does not wait (any more).
            UsageError: it cannot be answered like that.
            NotPossibleNow: it was refused: this process belongs to an agent, or somebody was quicker.
        """
        desk = self._desk
        said = _answer_kind(answer)
        which = item if isinstance(item, str) else item.item_id
        _, body = await desk.world.store.read(lambda view: answer_to(view, which, said, reason, amount))
        await desk.ask(body, principal(desk.world.store.store_id))

    async def events(self, after: int | None = None, run_id: str | None = None) -> AsyncGenerator[Entry]:
        """Yield the events of the log as they come, for ever: those after the sequence number *after*.

        Without one, those that come once the first is asked for.
        """
        desk = self._desk
        since = await desk.world.store.read(lambda view: view.last_seq()) if after is None else after
        async for entry in desk.events(since, RunId(run_id) if run_id is not None else None):
            yield entry

    def on_completion(self, callback: Completed) -> None:
        """Call *callback* with the result of every task that ends from now on; it may be a coroutine function.

        What it raises is logged (logger ``kapelle``) and stops nothing.
        """
        self._callbacks.append(callback)
        if self._watching is None and self._group is not None:
            self._watching = self._group.create_task(self._watch())

    async def _watch(self) -> None:
        self._told = await self._desk.world.store.read(lambda view: view.last_seq())
        async for entry in self._desk.events(self._told):
            await self._tell(entry)

    async def _tell_the_rest(self) -> None:
        """Tell callbacks of what has ended since they were last told: who leaves at once is to miss nothing."""
        told = self._told
        while told is not None:
            entries = await self._desk.world.store.read(lambda view, since=told: view.events(since, limit=500))
            for entry in entries:
                await self._tell(entry)
            told = entries[-1].seq if entries else None

    async def _tell(self, entry: Entry) -> None:
        event = entry.event
        async with self._telling:
            if self._told is not None and entry.seq <= self._told:
                return
            self._told = entry.seq
            if event.kind in ENDS and event.run_id is not None and event.task_id is not None:
                report = await self._report(event.run_id)
                found = next(part for part in report.tasks if part.task.task_id == event.task_id)
                await self._call(self._task_result(found))

    async def _call(self, result: TaskResult) -> None:
        for callback in list(self._callbacks):
            try:
                said = callback(result)
                if inspect.isawaitable(said):
                    await said
            except Exception:  # noqa: BLE001  # whatever a user's function raises must not stop the watch
                _LOG.exception("a callback for completed tasks failed at %s", result.name)

    async def _report(self, run_id: str) -> RunReport:
        report = await self._desk.world.store.read(lambda view: run_report(view, RunId(run_id)))
        if report is None:
            raise NotFound(f"there is no run {run_id}")
        return report

    def _task_result(self, entry: TaskReport) -> TaskResult:
        task = entry.task
        return TaskResult(
            task_id=TaskId(task.task_id),
            run_id=task.run_id,
            name=task.name,
            state=task.state.value,
            summary=task.summary,
            result=None if task.result is None else json.loads(task.result),
            commit=task.commit,
            attempts=len(entry.attempts),
            usage=entry.spend.usage,
            cost_usd=entry.spend.cost_usd,
            elapsed=entry.elapsed(self._desk.world.clock.now()),
            failure=task.failure.message if task.failure is not None else None,
        )

    def _run_result(self, report: RunReport) -> RunResult:
        run = report.run
        now = self._desk.world.clock.now()
        return RunResult(
            run_id=run.run_id,
            name=run.spec.name,
            state=run.state.value,
            tasks={entry.task.name: self._task_result(entry) for entry in report.tasks},
            usage=report.spend.usage,
            cost_usd=report.spend.cost_usd,
            elapsed=(run.ended_at or now) - run.submitted_at,
            held_up=report.held.why if report.held is not None else "",
        )


def _answer_kind(answer: str) -> Said:
    if answer in set(SpentAnswer):
        return SpentAnswer(answer)
    try:
        return AnswerKind(answer)
    except ValueError as error:
        raise UsageError(f"{answer!r} is no answer", remedy="Answer with allow, deny, always, raise or stop.") from error
