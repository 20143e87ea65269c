"""Workspaces of tasks: where they are and which ports they have."""

from kapelle.core.ids import WorkspaceId
from kapelle.core.run import Run
from kapelle.core.store import Tx, WorkspaceRow
from kapelle.core.task import Task, WorkspaceKind
from kapelle.engine.world import World


def workspace_for(world: World, tx: Tx, run: Run, task: Task) -> WorkspaceRow:
    """Return a new workspace for *task*; nothing is made on disk yet."""
    workspace_id = WorkspaceId(world.new_id("w"))
    kind = task.spec.workspace
    own = kind is not WorkspaceKind.PATH
    return WorkspaceRow(
        workspace_id=workspace_id,
        run_id=run.run_id,
        task_id=task.task_id,
        path=world.folders.workspace(workspace_id, task.name) if own else task.spec.path or "",
        repository=run.spec.repository if kind is WorkspaceKind.WORKTREE else None,
        base=None,
        first_port=free_ports(world, tx, run.spec.workspace.ports),
        owned=own,
    )


def free_ports(world: World, tx: Tx, count: int) -> int | None:
    """Return the first of *count* ports in a row that no other workspace has, or None when there are none."""
    if count <= 0:
        return None
    taken = [
        (row.first_port, run.spec.workspace.ports)
        for row in tx.agents.workspaces()
        for run in [tx.runs.get(row.run_id)]
        if row.first_port is not None and run is not None
    ]
    taken += [(spare.first_port, spare.make.workspace.ports) for spare in tx.spares.all() if spare.first_port is not None]
    size = max(count, 10)
    for first in range(world.settings.first_port, world.settings.last_port - size + 2, size):
        if not any(first < other + other_size and other < first + count for other, other_size in taken):
            return first
    return None


def port_names(first: int | None, count: int) -> tuple[tuple[str, str], ...]:
    """Return the environment variables that name a workspace's ports: PORT, PORT_1, PORT_2, ..."""
    if first is None:
        return ()
    return (("PORT", str(first)), *((f"PORT_{index}", str(first + index)) for index in range(1, count)))


def gate_workspace(world: World, tx: Tx, run: Run) -> WorkspaceRow:
    """Return the workspace in which merged trees of the run's target are gated, with a new row when there is none.

    It belongs to the run, since its set-up is the run's.
    """
    for row in tx.agents.workspaces():
        if row.task_id is None and row.run_id == run.run_id:
            return row
    workspace_id = WorkspaceId(world.new_id("w"))
    row = WorkspaceRow(
        workspace_id=workspace_id,
        run_id=run.run_id,
        task_id=None,
        path=world.folders.workspace(workspace_id, f"gate-{run.spec.target}"),
        repository=run.spec.repository,
        base=None,
        first_port=free_ports(world, tx, run.spec.workspace.ports),
    )
    tx.agents.put_workspace(row)
    return row
