"""Verify: gate a commit once more, in a fresh workspace that is gone afterwards. Needs no lead and writes nothing down."""

from kapelle.core.errors import WorkspaceFailed
from kapelle.core.frozen import replace
from kapelle.core.gate import Gate, Verdict
from kapelle.core.git import WorkspaceOrder
from kapelle.core.ids import WorkspaceId
from kapelle.core.run import Run
from kapelle.core.store import WorkspaceRow
from kapelle.engine.deploy import set_up
from kapelle.engine.gating import run_gate
from kapelle.engine.world import World


async def gate_again(world: World, run: Run, gate: Gate, commit: str) -> Verdict:
    """Run *gate*, as *run* has it, on *commit*.

    Raises:
        KapelleError: the workspace cannot be made or set up.
    """
    # Or a leader that begins or ends meanwhile would end the checks as well.
    world = replace(world, apart=True)
    workspace_id = WorkspaceId(world.new_id("w"))
    room = WorkspaceRow(
        workspace_id=workspace_id,
        run_id=run.run_id,
        task_id=None,
        # Not among the workspaces: a leader that begins clears away those that no row knows.
        path=f"{world.folders.root}/verify/{workspace_id}",
        repository=run.spec.repository,
        base=commit,
    )
    order = WorkspaceOrder(
        workspace_id=workspace_id,
        path=room.path,
        repository=run.spec.repository,
        base=commit,
        copy=run.spec.workspace.copy,
    )
    try:
        await world.workspaces.prepare(order)
        problem = await set_up(world, run, None, room)
        if problem is not None:
            raise WorkspaceFailed(problem)
        return await run_gate(world, run, None, gate, room, label=f"verify-{commit[:10]}")
    finally:
        await world.workspaces.remove(room.path, room.repository)
        for litter in (world.folders.checks(workspace_id), world.folders.setup(workspace_id)):
            await world.workspaces.remove(litter, None)
