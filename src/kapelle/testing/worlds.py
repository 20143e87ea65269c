"""A small world: the engine's stages over the real SQLite store and fakes of everything else, stepped by hand.

    async with world(tmp_path) as here:
        here.host.plays("api", writes({"api.py": "1"}))
        run_id = await here.submit(run_spec(task("api")))
        leader = await here.lead()
        await leader.run()

Nothing sleeps: ``Leader.settle`` waits until every act has ended or waits for something that only the test can give.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from kapelle.adapters.drivers.noop import NoopDriver
from kapelle.adapters.store.sqlite import SqliteStore
from kapelle.adapters.store.sqlite_lead import SqliteLeadership
from kapelle.core.agent import ProcessRef
from kapelle.core.attempt import Attempt, PromptRecord
from kapelle.core.events import Entry, Event
from kapelle.core.frozen import replace
from kapelle.core.ids import RequestId, RunId, TaskId
from kapelle.core.merge import Change, Integration
from kapelle.core.ports import DriverCapabilities
from kapelle.core.requests import Body, Request, Submit
from kapelle.core.run import Run, RunSpec
from kapelle.core.store import Store
from kapelle.core.task import Task
from kapelle.engine.acts import Acts
from kapelle.engine.alerts import AlertStage
from kapelle.engine.dispatch import DispatchStage
from kapelle.engine.execute import ExecuteStage
from kapelle.engine.inbox import InboxStage
from kapelle.engine.integrate import integration_ref
from kapelle.engine.liveness import LivenessStage
from kapelle.engine.loop import step_together
from kapelle.engine.merge import MergeStage
from kapelle.engine.meter import EngineMeter
from kapelle.engine.pool import PoolStage
from kapelle.engine.pulse import Pulse, PulseMeter
from kapelle.engine.recover import RecoverStage
from kapelle.engine.report import ReportStage
from kapelle.engine.stage import Stage
from kapelle.engine.submit import SubmitStage
from kapelle.engine.validate import ValidateStage
from kapelle.engine.warden import EngineWarden
from kapelle.engine.witness import Witness
from kapelle.engine.world import EngineSettings, Folders, World
from kapelle.testing.chance import SeededChance
from kapelle.testing.clock import HandClock
from kapelle.testing.drivers import LineDriver
from kapelle.testing.evaluating import PlainEvaluator
from kapelle.testing.factories import PROJECT
from kapelle.testing.fakes import (
    FakeCredentials,
    FakeGateway,
    FakeHints,
    FakeSecrets,
    FakeTerminal,
    FakeWarden,
    OpenWays,
    PlainSandbox,
)
from kapelle.testing.git import Files, MemoryGit
from kapelle.testing.hosts import BOOT, ScriptedHost, ScriptedProcess
from kapelle.testing.points import Points
from kapelle.testing.repositories import MemoryRepositories, MemoryWorkspaces
from kapelle.testing.stores import FragileStore, open_sqlite

T = TypeVar("T")
E = TypeVar("E", bound=Event)

PATIENCE = 20.0
"""Real seconds after which an act that neither ends nor waits is taken for one that hangs."""
ROUNDS = 300
"""Rounds after which a world that does not come to rest is taken for one that never will."""


def breaks(files: Files) -> str | None:
    """Find wrong whatever says that it is broken: what ``make test`` does in a small world until a test says otherwise."""
    found = sorted(name for name, content in files.items() if "broken" in content)
    return f"broken: {', '.join(found)}" if found else None


class SmallWorld:
    """The ports of an engine, and what a test wants to know of what is behind them."""

    def __init__(self, folder: Path, clock: HandClock, store: Store, leadership: SqliteLeadership, seed: int) -> None:
        self.clock = clock
        self.chance = SeededChance(seed)
        self.store = FragileStore(store)
        self.leadership = leadership
        self.points = Points(self.changed)
        self.git = MemoryGit()
        self.repository = self.git.init(PROJECT, {"README.md": "hello"})
        self.host = ScriptedHost(self.git, self.points)
        self.host.commands["make test"] = breaks
        self.gateway = FakeGateway()
        self.warden = FakeWarden()
        self.credentials = FakeCredentials()
        self.secrets = FakeSecrets()
        self.hints = FakeHints()
        self.sandbox = PlainSandbox()
        self.ways = OpenWays()
        self.terminal = FakeTerminal()
        self.leaders: list[Leader] = []
        """Those that have not died, the newest last."""
        self._taken = 0
        self.ports = World(
            store=self.store,
            clock=clock,
            chance=self.chance,
            host=self.host,
            drivers={"line": LineDriver(), "once": LineDriver("once", DriverCapabilities()), "noop": NoopDriver()},
            sandboxes={"process": self.sandbox},
            ways=self.ways,
            workspaces=MemoryWorkspaces(self.git, self.points),
            repositories=MemoryRepositories(self.git, self.points),
            gateway=self.gateway,
            warden=self.warden,
            credentials=self.credentials,
            secrets=self.secrets,
            hints=self.hints,
            evaluator=PlainEvaluator(),
            terminal=self.terminal,
            folders=Folders(root=str(folder / "state")),
        )

    def changed(self) -> None:
        """Let everybody who waits for acts look again."""
        for leader in self.leaders:
            leader.changed()

    def set(self, **settings: Any) -> None:
        """Change the engine's settings for the leaders to come. Without a heartbeat, nobody looks after still agents."""
        chosen: dict[str, Any] = {"heartbeat": timedelta(0), **settings}
        self.ports = replace(self.ports, settings=EngineSettings(**chosen))

    def replace(self, **ports: Any) -> None:
        """Put others in place of some ports, for the leaders to come."""
        self.ports = replace(self.ports, **ports)

    # --- Leading and asking ---

    async def lead(self, *, recover: bool = True) -> "Leader":
        """Let a new leader take over, whatever the last one does, and *recover* first of all."""
        self._taken += 1
        me = ProcessRef(boot_id=BOOT, pid=self._taken, started="leader")
        term = await self.leadership.take(me, self.clock.now())
        if term is None:
            raise AssertionError("another process leads")
        leader = Leader(self, replace(self.ports, term=term), me)
        self.leaders.append(leader)
        await leader.begin()
        if recover:
            await leader.step("recover")
        return leader

    async def ask(self, body: Body) -> RequestId:
        """Ask the leader for something, whenever there is one."""
        request_id = RequestId(self.ports.new_id("q"))
        now = self.clock.now()
        await self.store.ask([Request(request_id=request_id, body=body, principal="you", asked_at=now)])
        return request_id

    async def submit(self, spec: RunSpec) -> RunId:
        """Ask for a run and return its id."""
        run_id = RunId(self.ports.new_id("r"))
        await self.ask(Submit(run_id=run_id, spec=spec))
        return run_id

    # --- What is in the store ---

    async def refusal(self, request_id: RequestId) -> str | None:
        """Return why a request was refused, or None when it was done."""
        said = await self._said(request_id)
        return None if said is None else said.rpartition("\n")[0] or said

    async def remedy(self, request_id: RequestId) -> str:
        """Return what helps, as whoever asked for something that was refused is told."""
        return (await self._said(request_id) or "").rpartition("\n")[2]

    async def _said(self, request_id: RequestId) -> str | None:
        said = await self.store.read(lambda view: view.requests.settlement(request_id))
        if said is None or said.at is None:
            raise AssertionError(f"{request_id} was not settled")
        return said.refusal

    async def run(self, run_id: RunId) -> Run:
        """Return a run that is there."""
        found = await self.store.read(lambda view: view.runs.get(run_id))
        if found is None:
            raise AssertionError(f"there is no run {run_id}")
        return found

    async def tasks(self) -> dict[str, Task]:
        """Return all tasks by name; of two runs' tasks of one name, that of the later run."""
        overviews = await self.store.read(lambda view: view.runs.overviews(limit=1000))
        ids = [overview.run.run_id for overview in reversed(overviews)]
        found = await self.store.read(lambda view: [task for run_id in ids for task in view.tasks.of_run(run_id)])
        return {task.name: task for task in found}

    async def task(self, name: str = "api") -> Task:
        """Return the task called *name*."""
        return (await self.tasks())[name]

    async def task_id(self, name: str = "api") -> TaskId:
        """Return the id of the task called *name*."""
        return (await self.task(name)).task_id

    async def attempts(self, name: str = "api") -> Sequence[Attempt]:
        """Return the attempts of the task called *name*."""
        task_id = await self.task_id(name)
        return await self.store.read(lambda view: view.attempts.of_task(task_id))

    async def prompts(self, name: str = "api") -> Sequence[PromptRecord]:
        """Return all prompts of the task called *name*."""
        attempts = await self.attempts(name)
        return await self.store.read(
            lambda view: [prompt for attempt in attempts for prompt in view.attempts.prompts(attempt.attempt_id)]
        )

    async def changes(self, name: str = "api") -> Sequence[Change]:
        """Return the changes of the task called *name*."""
        task_id = await self.task_id(name)
        return await self.store.read(lambda view: view.changes.of_task(task_id))

    async def integration(self, line: str = "") -> Integration:
        """Return how far a line of main's queue has come."""
        found = await self.store.read(lambda view: view.changes.integration(PROJECT, "main", line))
        if found is None:
            raise AssertionError(f"nothing was merged onto the line {line!r} of main")
        return found

    async def log(self) -> list[Entry]:
        """Return the whole log."""
        return list(await self.store.read(lambda view: view.events(limit=1_000_000)))

    async def events(self, kind: type[E], name: str | None = None) -> list[E]:
        """Return the events of one kind, of one task when its name is given."""
        task_id = None if name is None else await self.task_id(name)
        facts = [entry.event for entry in await self.log()]
        return [fact for fact in facts if isinstance(fact, kind) and (task_id is None or fact.task_id == task_id)]

    # --- What is behind the other ports ---

    def process(self, task: str = "api") -> ScriptedProcess:
        """Return the newest process of *task*."""
        return self.host.of_task(task)[-1]

    @property
    def target(self) -> str:
        """The commit that main is at."""
        return self.repository.refs["refs/heads/main"]

    def integrated(self, line: str = "") -> str | None:
        """The commit that the integration ref of a line of main is at."""
        return self.repository.refs.get(integration_ref(self.store.store_id, "main", line))

    @property
    def kept(self) -> dict[str, str]:
        """What was kept of work that was not merged: by ref, the commit."""
        return {ref: commit for ref, commit in self.repository.refs.items() if "/kept/" in ref}


class _Group(asyncio.TaskGroup):
    """The tasks of a leader. Unlike in a true group, an error waits until somebody asks for it."""

    def __init__(self, leader: "Leader") -> None:
        super().__init__()
        self.tasks: list[asyncio.Task[Any]] = []
        self._leader = leader

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start a task."""
        made = asyncio.get_running_loop().create_task(coro, name=name, context=context)
        made.add_done_callback(lambda _: self._leader.changed())
        self.tasks.append(made)
        return made

    def running(self) -> set[asyncio.Task[Any]]:
        """Return the tasks that have not ended; raise what one of the others let through."""
        ended = [task for task in self.tasks if task.done()]
        self.tasks = [task for task in self.tasks if not task.done()]
        for task in ended:
            if not task.cancelled():
                task.result()
        return set(self.tasks)


class Leader:
    """One leader's stages, stepped by hand."""

    def __init__(self, here: SmallWorld, world: World, me: ProcessRef) -> None:
        self.here = here
        self.world = world
        self.term = world.term
        self.meter = EngineMeter(self.wake, self.wake, world.clock.now)
        self.pulse = Pulse(self.wake, world.clock.now)
        self.witness = Witness(self.wake)
        self.judge = EngineWarden(self.wake)
        self._me = me
        self._group = _Group(self)
        self._changed = asyncio.Event()
        self._woken = False
        self.acts = {
            name: Acts(self._group, self.wake, self.wake)
            for name in ("pool", "execute", "validate", "merge", "report", "liveness")
        }
        self.stages: dict[str, Stage] = {}
        self.dead = False

    async def begin(self) -> None:
        """Do what a leader does before its first step."""
        await self.world.store.read(self.meter.load)
        base_url = await self.world.gateway.start(PulseMeter(self.meter, self.pulse))
        self.world.ways.listen(self.witness.hear)
        await self.world.warden.start(self.judge)
        stages: list[Stage] = [
            RecoverStage(self.world, self._me),
            SubmitStage(self.world, halting=self.meter.halting),
            DispatchStage(self.world),
            PoolStage(self.world, self.acts["pool"], base_url),
            ExecuteStage(self.world, self.acts["execute"], self.meter, self.judge, self.witness, self.pulse, base_url),
            ValidateStage(self.world, self.acts["validate"]),
            MergeStage(self.world, self.acts["merge"]),
            InboxStage(self.world, self.judge),
            LivenessStage(self.world, self.acts["liveness"], self.pulse),
            AlertStage(self.world),
            ReportStage(self.world, self.acts["report"], self.acts["merge"]),
        ]
        self.stages = {stage.name: stage for stage in stages}

    def wake(self) -> None:
        """What the engine calls when there may be something to do."""
        self._woken = True
        self.changed()

    def changed(self) -> None:
        """Let ``settle`` look again."""
        self._changed.set()

    async def settle(self) -> None:
        """Wait until every act has ended or waits for what only a test can give; raise what an act let through."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self._group.running() - self.here.host.blocked - self.here.points.blocked:
                    self._changed.clear()
                    await self._changed.wait()
                # What is called when an act has ended is called one turn of the loop later.
                await asyncio.sleep(0)
        except TimeoutError as error:
            raise AssertionError(f"these acts hang: {self._group.tasks}") from error

    async def step(self, *names: str) -> datetime | None:
        """Step the stages called *names*, each with its acts; return when the last one wants to be called again."""
        wake: datetime | None = None
        for name in names:
            wake = await self.stages[name].step(self.here.clock.now())
            await self.settle()
        return wake

    async def round(self) -> tuple[bool, datetime | None]:
        """Step every stage once, as the loop does; say whether there is reason to do so again now, and when there is later."""
        self._woken = False
        now = self.here.clock.now()
        alone, *others = self.stages.values()
        recovered = await alone.step(now)
        wakes = [*([recovered] if recovered is not None else []), *await step_together(others, now)]
        await self.settle()
        later = min((wake for wake in wakes if wake > now), default=None)
        return self._woken or any(wake <= now for wake in wakes), later

    async def run(self, rounds: int = ROUNDS) -> datetime | None:
        """Go round until there is nothing to do now; return when there is again."""
        for _ in range(rounds):
            again, later = await self.round()
            if not again:
                return later
        raise AssertionError(f"after {rounds} rounds there is still something to do")

    async def run_out(self, waits: int = 100) -> None:
        """Go round, moving the clock to whatever is waited for, until nothing is."""
        for _ in range(waits):
            later = await self.run()
            if later is None:
                return
            self.here.clock.move_to(later)
        raise AssertionError(f"after {waits} waits there is still something to wait for")

    async def die(self) -> None:
        """Die as by kill -9: every act is cut off where it is, and agents see the end of their input."""
        if self not in self.here.leaders:
            return
        newest = self.here.leaders[-1] is self
        self.here.leaders.remove(self)
        running = [task for task in self._group.tasks if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        self._group.tasks = []
        if newest:
            self.here.host.leader_died()
            await self.world.warden.stop()
            await self.world.gateway.stop()


@asynccontextmanager
async def world(
    folder: Path, *, seed: int = 0, store: SqliteStore | None = None, **settings: Any
) -> AsyncGenerator[SmallWorld]:
    """Make a small world in *folder*; *settings* are those of the engine.

    It has a store of its own, or lives in *store*, which is empty and stays open.
    """
    clock = HandClock()
    own = store is None
    store = store or await open_sqlite(folder / "store.db", clock)
    leadership = SqliteLeadership(store, str(folder / "lead.lock"))
    here = SmallWorld(folder, clock, store, leadership, seed)
    here.set(**settings)
    try:
        yield here
    finally:
        for leader in list(here.leaders):
            await leader.die()
        lead = await leadership.holder()
        if lead is not None:
            await leadership.give_up(lead.term)
        if own:
            await store.close()
