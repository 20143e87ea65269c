"""Boxing: everything that Kapelle starts for a task (agents, set-up commands, checks) starts in a sandbox, and ends in one."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from kapelle.core.errors import ProgramMissing
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import RunId, TaskId
from kapelle.core.isolation import Isolation, Limit, Met, Mount, NetworkKind, Place, ProcessLimits, Remains, Way
from kapelle.core.network import Pass
from kapelle.core.ports import CommandResult, Launch, Sandbox
from kapelle.core.sizes import format_size
from kapelle.core.store import WorkspaceRow
from kapelle.engine.world import World

WAYS = "ways"
"""The directory, in the folder of a process, with the sockets that lead it out of its sandbox."""


@frozen
class Box:
    """Which sandbox, and what is asked of it."""

    sandbox: str
    isolation: Isolation
    workspace: WorkspaceRow
    key: str
    """Which process it is for; no other that is there at the same time is called so."""
    folder: str
    home: str
    run_id: RunId
    task_id: TaskId | None
    model: str | None = None
    """The address of the gateway, for who may call its model."""
    mounts: tuple[Mount, ...] = ()
    """What it needs beyond its workspace and what is asked for."""


def sandbox_of(world: World, name: str) -> Sandbox:
    """Return the sandbox *name*.

    Raises:
        ProgramMissing: there is none here.
    """
    sandbox = world.sandboxes.get(name)
    if sandbox is None:
        raise ProgramMissing(f"there is no sandbox {name} here", remedy="Install the plug-in that brings it.")
    return sandbox


async def boxed(world: World, box: Box, launch: Launch) -> Launch:
    """Return *launch* as it runs in *box*.

    Raises:
        KapelleError: there is no such sandbox, or it cannot be made for this workspace.
    """
    sandbox = sandbox_of(world, box.sandbox)
    mounts: Sequence[Mount] = ()
    if sandbox.capabilities.files and box.workspace.repository is not None and box.workspace.owned:
        mounts = await world.workspaces.reach(box.workspace.path, box.workspace.repository)
    return await sandbox.wrap(launch, replace(_place(world, box, (*mounts, *box.mounts)), way=await way_of(world, box)))


async def way_of(world: World, box: Box) -> Way | None:
    """Open the way out of *box*, or open it again, and return it; None where it needs none, and where there is to be none.

    Raises:
        KapelleError: it cannot be opened.
    """
    network = box.isolation.network
    if network.kind in {NetworkKind.OPEN, NetworkKind.NONE}:
        return None
    model = urlsplit(box.model).port if box.model is not None else None
    holder = Pass(key=box.key, run_id=box.run_id, task_id=box.task_id, network=network, model=model)
    return await world.ways.open(holder, f"{box.folder}/{WAYS}")


async def cleared(world: World, box: Box) -> Remains:
    """Remove what is left of the process that *box* was for, and return what is to be said of it.

    Raises:
        KapelleError: something of it cannot be removed.
    """
    await world.ways.close(box.key)
    return await sandbox_of(world, box.sandbox).clear(_place(world, box))


async def met_so_far(world: World, box: Box) -> Met | None:
    """Return the limit that the process that *box* is for has met, though it goes on; None when that is none.

    Raises:
        KapelleError: it cannot be told.
    """
    return met(await sandbox_of(world, box.sandbox).met(_place(world, box)), box.isolation.limits)


async def run_boxed(world: World, box: Box, launch: Launch, output: str, *, hide: str = "") -> tuple[CommandResult, Met | None]:
    """Run a command in *box* to its end, and return how it ended, with what limit it met, if any.

    *hide* is as in ``Launch``.

    Raises:
        KapelleError: it cannot be started.
    """
    wrapped = await boxed(world, box, launch)
    try:
        result = await world.host.run(replace(wrapped, hide=hide), output)
    finally:
        remains = await cleared(world, box)
    return result, met(remains, box.isolation.limits)


def _place(world: World, box: Box, mounts: tuple[Mount, ...] = ()) -> Place:
    return Place(
        workspace=box.workspace.path,
        folder=box.folder,
        home=box.home,
        store_id=world.mark,
        key=box.key,
        owned=box.workspace.owned,
        mounts=mounts,
        isolation=box.isolation,
    )


def met(remains: Remains, limits: ProcessLimits) -> Met | None:
    """Return the limit that a process met, or None when it met none."""
    if remains.out_of_memory:
        reason = f"it used more than the {format_size(limits.memory)} of memory that it may" if limits.memory else ""
        return Met(reason=reason or "it had no memory left", out_of_memory=True)
    if remains.full is Limit.DISK:
        reason = f"it wrote more than the {format_size(limits.disk or 0)} on disk that it may"
        return Met(reason=reason, again=False)
    if remains.full is Limit.PIDS:
        return Met(reason=f"it could not start further processes: it may have {limits.pids} at once")
    if remains.full is Limit.MEMORY:
        reason = f"it used more than the {format_size(limits.memory or 0)} of memory that it may"
        return Met(reason=reason, out_of_memory=True)
    return None
