"""Integrating one change: what is done in git and on disk, and what came of it. The stage writes it down."""

from dataclasses import dataclass, replace

from kapelle.core.attempt import Attempt
from kapelle.core.errors import WorkspaceFailed
from kapelle.core.gate import Verdict
from kapelle.core.merge import Change, Integration, undelivered
from kapelle.core.ports import Commit, Signature, WorkspaceOrder
from kapelle.core.run import Run
from kapelle.core.store import WorkspaceRow
from kapelle.core.task import Task
from kapelle.core.wording import merge_message
from kapelle.engine.deploy import set_up
from kapelle.engine.gating import Gating, key_of, run_gate
from kapelle.engine.world import World

MERGER = "Kapelle"
MERGER_EMAIL = "merge-queue@agents.kapelle.invalid"


@dataclass(frozen=True, kw_only=True, slots=True)
class Merging:
    """A change whose turn it is."""

    change: Change
    task: Task
    attempt: Attempt
    run: Run
    workspace: WorkspaceRow
    room: WorkspaceRow
    """The workspace in which merged trees of this target are gated."""
    integration: Integration | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Integrated:
    """Merged, and the gate passed on the merged tree."""

    commit: str
    gating: Gating | None
    changed: tuple[str, ...]
    delivered: str
    """Where the target is, on which this was built."""
    room_ready: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflicted:
    """It does not fit what was merged meanwhile, which is now in the workspace, with markers."""

    files: tuple[str, ...]
    diff: str
    onto: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Broke:
    """It merges cleanly, and the gate fails on the merged tree. What was merged meanwhile is now in the workspace."""

    gating: Gating
    diff: str
    onto: str
    room_ready: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Unmergeable:
    """It cannot be merged at all."""

    reason: str


def integration_ref(store_id: str, target: str, line: str = "") -> str:
    """Return the ref that a line of the merge queue of *target* builds up."""
    return f"refs/kapelle/{store_id}/integration/{target}" + (f"@{line}" if line else "")


class Integrator:
    """The acts of the merge stage."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def integrate(self, entry: Merging) -> Integrated | Conflicted | Broke | Unmergeable:
        """Merge the change onto the tip, gate what comes of it, and say how it went.

        Raises:
            KapelleError: git or the file system failed.
        """
        repository, change = entry.change.repository, entry.change
        target = await self._world.repositories.resolve(repository, f"refs/heads/{change.target}")
        if target is None:
            return Unmergeable(reason=f"the branch {change.target} is gone")
        onto = await self._onto(entry, target)
        if isinstance(onto, Unmergeable):
            return onto
        merged = await self._world.repositories.merge(repository, onto, change.head, self._signature(entry))
        if merged.commit is None:
            await self._world.workspaces.bring_in(entry.workspace.path, repository, onto)
            files = tuple(conflict.file for conflict in merged.conflicts)
            diff = await self._world.repositories.diff(repository, change.base, onto, files)
            return Conflicted(files=files, diff=diff, onto=onto)
        gating, ready = await self._gate(entry, merged.commit)
        if gating is not None and not gating.verdict.passed:
            await self._world.workspaces.bring_in(entry.workspace.path, repository, onto)
            diff = await self._world.repositories.diff(repository, change.base, onto)
            return Broke(gating=gating, diff=diff, onto=onto, room_ready=ready)
        changed = tuple(await self._world.repositories.changed(repository, onto, merged.commit.commit))
        return Integrated(commit=merged.commit.commit, gating=gating, changed=changed, delivered=target, room_ready=ready)

    async def _onto(self, entry: Merging, target: str) -> str | Unmergeable:
        """Return the commit to merge onto: all that was merged and all that the target holds meanwhile."""
        repository, tip = entry.change.repository, undelivered(entry.integration)
        if tip is None or await self._world.repositories.is_ancestor(repository, tip, target):
            return target
        if await self._world.repositories.is_ancestor(repository, target, tip):
            return tip
        # The target moved on by itself while merged work was not delivered: bring both together first, and prove it.
        signature = Signature(author=MERGER, email=MERGER_EMAIL, message=f"Merge undelivered work into {entry.change.target}\n")
        both = await self._world.repositories.merge(repository, target, tip, signature)
        if both.commit is None:
            # A person must settle this; until then the queue goes on, on what it has proven.
            return tip
        gating, _ = await self._gate(entry, both.commit)
        if gating is not None and not gating.verdict.passed:
            return tip
        return both.commit.commit

    async def catch_up(self, integration: Integration, run: Run, room: WorkspaceRow) -> Integration:
        """Merge undelivered work onto a target that has moved on by itself, and prove it with every gate of the run."""
        repository = integration.repository
        target = await self._world.repositories.resolve(repository, f"refs/heads/{integration.target}")
        if target is None:
            return replace(integration, held_up=f"the branch {integration.target} is gone")
        message = f"Merge undelivered work into {integration.target}\n"
        signature = Signature(author=MERGER, email=MERGER_EMAIL, message=message)
        both = await self._world.repositories.merge(repository, target, integration.tip, signature)
        if both.commit is None:
            files = ", ".join(conflict.file for conflict in both.conflicts)
            return replace(integration, held_up=f"{integration.target} has moved on and conflicts with merged work in {files}")
        await self._prepare(room, repository, both.commit.commit, run)
        for name in dict.fromkeys(spec.gate for spec in run.spec.tasks if spec.gate is not None):
            gate = run.spec.gate(name)
            if gate is None:
                continue
            verdict = await run_gate(self._world, run, None, gate, room, label=f"catch-up-{both.commit.commit[:10]}")
            if verdict.failing is not None:
                reason = f"{integration.target} has moved on, and {name}/{verdict.failing.name} fails on both together"
                return replace(integration, held_up=reason)
        return replace(integration, tip=both.commit.commit, held_up="")

    async def _gate(self, entry: Merging, commit: Commit) -> tuple[Gating | None, bool]:
        """Gate *commit* in the target's own workspace; say also whether that is set up now."""
        gate = entry.run.spec.gate(entry.task.spec.gate)
        if gate is None:
            return None, entry.room.ready
        key = key_of(self._world, entry.run, gate, commit.tree)
        receipt = await self._world.store.read(lambda view: view.changes.receipt(key))
        if receipt is not None:
            verdict = Verdict(passed=True, checks=receipt.checks)
            return Gating(gate=gate, tree=commit.tree, key=key, verdict=verdict, reused=True), entry.room.ready
        await self._prepare_room(entry, commit.commit)
        label = f"merge-{entry.change.change_id}"
        verdict = await run_gate(self._world, entry.run, entry.task, gate, entry.room, label=label)
        return Gating(gate=gate, tree=commit.tree, key=key, verdict=verdict), True

    async def _prepare_room(self, entry: Merging, commit: str) -> None:
        await self._prepare(entry.room, entry.change.repository, commit, entry.run)

    async def _prepare(self, room: WorkspaceRow, repository: str, commit: str, run: Run) -> None:
        await self._world.workspaces.prepare(
            WorkspaceOrder(
                workspace_id=room.workspace_id,
                path=room.path,
                repository=repository,
                base=commit,
                copy=run.spec.workspace.copy,
            )
        )
        await self._world.workspaces.put(room.path, repository, commit)
        if not room.ready:
            problem = await set_up(self._world, run, None, room)
            if problem is not None:
                raise WorkspaceFailed(problem)

    def _signature(self, entry: Merging) -> Signature:
        message = merge_message(
            entry.task.name,
            entry.change.target,
            run_id=entry.run.run_id,
            task_id=entry.task.task_id,
            attempt=entry.attempt.number,
            agent=entry.attempt.config,
        )
        return Signature(author=MERGER, email=MERGER_EMAIL, message=message)

    async def deliver(self, integration: Integration, run: Run, room: WorkspaceRow) -> Integration:
        """Move the target to the tip; return the integration as it is then, with a reason when it could not be moved."""
        await self.move_ref(integration)
        repository = integration.repository
        target = await self._world.repositories.resolve(repository, f"refs/heads/{integration.target}")
        if target is None:
            return replace(integration, held_up=f"the branch {integration.target} is gone")
        if target == integration.tip or await self._world.repositories.is_ancestor(repository, integration.tip, target):
            return replace(integration, delivered=integration.tip, held_up="")
        if not await self._world.repositories.is_ancestor(repository, target, integration.tip):
            # What comes of it is written down before any ref moves: the delivery itself is the next step's.
            return await self.catch_up(integration, run, room)
        delivered = await self._world.repositories.deliver(repository, integration.target, integration.tip, target)
        if delivered.moved:
            return replace(integration, delivered=integration.tip, held_up="")
        return replace(integration, held_up=delivered.reason)

    async def move_ref(self, integration: Integration) -> None:
        """Let the integration ref stand where the store says."""
        ref = integration_ref(self._world.store.store_id, integration.target, integration.line)
        now = await self._world.repositories.resolve(integration.repository, ref)
        if now != integration.tip:
            await self._world.repositories.move_ref(integration.repository, ref, integration.tip, now)
