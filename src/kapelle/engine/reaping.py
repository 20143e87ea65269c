"""Reaping: end what an agent or a check has started and left behind, once nobody stands for it any more.

What stays in its process group ends with the agent. What left it (``setsid``, a daemon) is found by what it carries in its
environment: this store's id, and the id of the workspace that it was started in. All processes of the machine have to be
looked at for that, so one look serves all workspaces that are to be cleared at the time.
"""

from asyncio import Lock, TaskGroup
from collections.abc import Collection, Iterable
from datetime import timedelta

from kapelle.core.agent import ProcessRef
from kapelle.core.errors import KapelleError
from kapelle.core.event import Event
from kapelle.core.events import AgentReaped
from kapelle.core.frozen import frozen
from kapelle.core.ids import WorkspaceId
from kapelle.core.isolation_events import SandboxLeft, SandboxSwept
from kapelle.core.store import View
from kapelle.engine.boxing import WAYS, sandbox_of
from kapelle.engine.showing import close_left_over
from kapelle.engine.world import World

GRACE = timedelta(milliseconds=250)
"""How long what was left behind in a workspace may take to end when it is asked to."""
LOOKS = 5
"""How often it is looked again for what those that were ended have started meanwhile."""


@frozen
class Strays:
    """What carries a store's id and belongs to no live agent."""

    processes: tuple[ProcessRef, ...] = ()
    unknown: SandboxLeft | None = None
    """Which sandbox cannot tell what is of its live agents, and why; then *processes* is empty."""


async def strays(world: World) -> Strays:
    """Return what an agent or a check started and left behind, and nothing of live agents, wherever their sandboxes have it."""
    living, keys = await world.store.read(_living)
    first = set(await world.host.leftovers(world.store.store_id, living=living))
    if not first:
        return Strays()
    # Sandboxes are asked after that look: what is started in one meanwhile was not in view.
    for name, those in sorted(keys.items()):
        try:
            living |= set(await sandbox_of(world, name).inside(world.store.store_id, those))
        except KapelleError as error:
            return Strays(unknown=SandboxLeft(sandbox=name, reason=error.in_full))
    found = await world.host.leftovers(world.store.store_id, living=living)
    return Strays(processes=tuple(process for process in found if process in first))


def _living(view: View) -> tuple[set[ProcessRef], dict[str, set[str]]]:
    """Return the processes of the live agents, and who they are, by sandbox."""
    live = view.agents.live()
    keys: dict[str, set[str]] = {}
    for agent in live:
        run = view.runs.get(agent.run_id)
        if run is not None:
            keys.setdefault(run.spec.config(agent.config).sandbox, set()).add(agent.agent_id)
    spares = view.spares.all()
    for spare in spares:
        keys.setdefault(spare.config.sandbox, set()).add(spare.agent_id)
    return {agent.process for agent in (*live, *spares) if agent.process is not None}, keys


async def reap(world: World, me: ProcessRef, *, grace: timedelta) -> None:
    """End what carries this store's id and belongs to no live agent: what an agent or a check started and left behind."""
    found = await strays(world)
    reaped: list[Event] = [] if found.unknown is None else [found.unknown]
    reaped += await _end(world, [process for process in found.processes if process != me], grace)
    reaped += await _sweep(world)
    await close_left_over(world)
    if reaped:
        await world.store.transact(lambda tx: tx.log(*reaped), term=world.term)


async def sweep_all(world: World) -> None:
    """Remove what any sandbox of this machine had made for processes that nobody stands for any more."""
    swept = await _sweep(world, {name for name, sandbox in world.sandboxes.items() if not sandbox.missing()})
    if swept:
        await world.store.transact(lambda tx: tx.log(*swept), term=world.term)


async def _sweep(world: World, others: Collection[str] = ()) -> list[Event]:
    """Remove what sandboxes had made for processes that nobody stands for: those of open runs, and *others*."""
    keep, names, folders = await world.store.read(_in_use)
    names = names.union(others)
    await world.ways.sweep(world.folders.root, {f"{folder}/{WAYS}" for folder in folders})
    events: list[Event] = []
    for name in sorted(names & set(world.sandboxes)):
        try:
            keys = await world.sandboxes[name].sweep(world.store.store_id, keep)
        except KapelleError as error:
            events.append(SandboxLeft(sandbox=name, reason=error.in_full))
            continue
        if keys:
            events.append(SandboxSwept(sandbox=name, keys=tuple(keys)))
    return events


def _in_use(view: View) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the live agents, the sandboxes that anything of an open run is in, and the folders of the live agents."""
    runs = view.runs.open()
    names = {run.spec.workspace.sandbox for run in runs} | {config.sandbox for run in runs for config in run.spec.configs}
    live = (*view.agents.live(), *view.spares.all())
    return frozenset(agent.agent_id for agent in live), frozenset(names), frozenset(agent.folder for agent in live)


async def _end(world: World, processes: Iterable[ProcessRef], grace: timedelta) -> list[AgentReaped]:
    async with TaskGroup() as group:
        ended = [
            (process, group.create_task(world.host.end(process, f"{world.folders.root}/reaped/{process.pid}", grace=grace)))
            for process in processes
        ]
    return [AgentReaped(pid=process.pid) for process, _ in ended]


class Reaper:
    """Ends what is still at work in workspaces that are to be cleared; their agents have ended."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._wanted: set[WorkspaceId] = set()
        self._looking = Lock()

    def add(self, workspaces: Iterable[WorkspaceId]) -> None:
        """Have the next look look for *workspaces*, too."""
        self._wanted.update(workspaces)

    async def quiet(self, workspace_id: WorkspaceId) -> list[AgentReaped]:
        """Return when nothing is at work in *workspace_id*, with what was ended by the look that this took, for all of them.

        Raises:
            HostFailed: something cannot be ended.
        """
        async with self._looking:
            if workspace_id not in self._wanted:
                # A look for others had it in view.
                return []
            batch = frozenset(self._wanted)
            reaped = await self._reap(batch)
            # Only now: whoever waits for a look that failed takes one of its own.
            self._wanted -= batch
            return reaped

    async def _reap(self, batch: Collection[WorkspaceId]) -> list[AgentReaped]:
        reaped: list[AgentReaped] = []
        for _ in range(LOOKS):
            found = await self._world.host.leftovers(self._world.store.store_id, batch)
            if not found:
                break
            reaped += await _end(self._world, found, GRACE)
        return reaped
