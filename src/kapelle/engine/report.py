"""Report: end runs whose tasks have all ended, and clear away what finished tasks leave behind."""

from datetime import datetime, timedelta

from kapelle.core.agent import AgentConfig
from kapelle.core.attempt import Attempt, Outcome, PromptState, home_of
from kapelle.core.errors import KapelleError
from kapelle.core.events import SnapshotKept, WorkspaceRemoved, WorkspaceStuck
from kapelle.core.frozen import frozen, replace
from kapelle.core.hiding import NOTHING, Hiding
from kapelle.core.ids import AttemptId, WorkspaceId
from kapelle.core.merge import ChangeState
from kapelle.core.run import RUN_TERMINAL
from kapelle.core.store import Tx, WorkspaceRow
from kapelle.engine.acts import Acts, Finding
from kapelle.engine.ending import end_runs
from kapelle.engine.reaping import Reaper
from kapelle.engine.secrets import hiding
from kapelle.engine.world import World

AGAIN = timedelta(seconds=30)
"""How long to wait before a workspace that could not be cleared is tried again."""


@frozen
class _Clearing:
    """A workspace that nobody needs any more."""

    workspace: WorkspaceRow
    ref: str
    """Where what is not merged is kept."""
    merged_tree: str | None
    """The tree that was merged out of it, if one was."""
    home: str | None = None
    """The home of an attempt that succeeded (nobody asks for its conversation again), or had secrets."""
    attempt_id: AttemptId | None = None
    config: AgentConfig | None = None
    since: datetime | None = None
    """When the attempt began."""


class ReportStage:
    """Ends runs and gives workspaces back."""

    name = "report"

    def __init__(self, world: World, acts: Acts, merging: Acts) -> None:
        self._world = world
        self._acts = acts
        self._merging = merging
        """The acts on targets, by repository and branch: while one is running, the room it works in is not cleared."""
        self._reaper = Reaper(world)
        self._again_at: dict[WorkspaceId, datetime] = {}
        """When a workspace that could not be cleared is tried again."""

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        findings = self._acts.take()

        def decide(tx: Tx) -> tuple[int, list[_Clearing]]:
            for finding in findings:
                finding(tx)
            return end_runs(tx), self._to_clear(tx)

        try:
            ended, clearing = await self._world.store.transact(decide, term=self._world.term)
        except BaseException:
            self._acts.give_back(findings)
            raise
        self._reaper.add(order.workspace.workspace_id for order in clearing)
        for order in clearing:
            self._acts.start(order.workspace.workspace_id, self._clear(order))
        waiting = [moment for moment in self._again_at.values() if moment > now]
        return now if findings or ended else min(waiting, default=None)

    def _to_clear(self, tx: Tx) -> list[_Clearing]:
        found: list[_Clearing] = []
        live = {agent.attempt_id for agent in tx.agents.live()}
        for row in tx.agents.workspaces():
            if self._acts.running(row.workspace_id) or self._again_at.get(row.workspace_id, tx.now) > tx.now:
                continue
            if row.task_id is None:
                run = tx.runs.get(row.run_id)
                target = run.spec.target if run is not None else None
                over = run is None or run.state in RUN_TERMINAL
                if over and not self._merging.busy((row.repository, target)):
                    found.append(_Clearing(workspace=row, ref="", merged_tree=None))
                continue
            attempts = tx.attempts.of_task(row.task_id)
            attempt = next((entry for entry in attempts if entry.workspace_id == row.workspace_id), None)
            if attempt is None or attempt.ended_at is None or attempt.attempt_id in live:
                continue
            merged = [change for change in tx.changes.of_task(row.task_id) if change.state is ChangeState.MERGED]
            ref = f"refs/kapelle/{self._world.store.store_id}/kept/{row.task_id}/{attempt.number}"
            order = _Clearing(workspace=row, ref=ref, merged_tree=merged[-1].tree if merged else None)
            found.append(self._with_secrets(tx, order, attempt))
        return found

    def _with_secrets(self, tx: Tx, order: _Clearing, attempt: Attempt) -> _Clearing:
        """Return *order* with what is to be done about the home and the secrets of *attempt*."""
        run = tx.runs.get(attempt.run_id)
        config = run.spec.config(attempt.config) if run is not None else None
        to_go = attempt.outcome is Outcome.SUCCEEDED or (config is not None and bool(config.secrets))
        # Where no agent was ever started there is nothing to look for, and its secrets may never have been to be had.
        begun = any(prompt.state is not PromptState.PENDING for prompt in tx.attempts.prompts(attempt.attempt_id))
        return replace(
            order,
            home=self._world.folders.home(home_of(attempt)) if to_go else None,
            attempt_id=attempt.attempt_id,
            config=config if begun else None,
            since=attempt.started_at,
        )

    async def _clear(self, order: _Clearing) -> Finding | None:
        row = order.workspace
        kept: str | None = None
        found = NOTHING
        try:
            # Before anything is kept: what is still at work there would write after it.
            reaped = await self._reaper.quiet(row.workspace_id)
            if reaped:
                self._acts.report(lambda tx: tx.log(*reaped))
            if row.repository is not None and row.task_id is not None:
                found = await self._hiding(order)
                kept = await self._keep(order, row.repository, found)
            if row.owned:
                await self._world.workspaces.remove(row.path, row.repository)
            if found and row.repository is not None and order.since is not None:
                # With the workspace nothing needs any more what its agent wrote into the repository beside its change.
                await self._world.workspaces.cleanse(row.repository, found, order.since)
            folders = self._world.folders
            for litter in (folders.checks(row.workspace_id), folders.setup(row.workspace_id), order.home):
                if litter is not None:
                    await self._world.workspaces.remove(litter, None)
            if order.attempt_id is not None:
                # The last to go: until here somebody had to know what to look for.
                self._world.secrets.forget(order.attempt_id)
        except KapelleError as error:
            # It stays where it is, with its row, and is tried again later.
            first = row.workspace_id not in self._again_at
            self._again_at[row.workspace_id] = self._world.clock.now() + AGAIN
            stuck = WorkspaceStuck(run_id=row.run_id, task_id=row.task_id, path=row.path, reason=found.hide_text(error.in_full))
            return (lambda tx: tx.log(stuck)) if first else None

        def write(tx: Tx) -> None:
            self._again_at.pop(row.workspace_id, None)
            tx.agents.drop_workspace(row.workspace_id)
            if kept is not None:
                tx.log(SnapshotKept(run_id=row.run_id, task_id=row.task_id, ref=order.ref, commit=kept))
            if row.owned and row.task_id is not None:
                tx.log(WorkspaceRemoved(run_id=row.run_id, task_id=row.task_id, path=row.path))

        return write

    async def _hiding(self, order: _Clearing) -> Hiding:
        if order.config is None or order.attempt_id is None:
            return NOTHING
        return await hiding(self._world, order.config, order.attempt_id)

    async def _keep(self, order: _Clearing, repository: str, found: Hiding) -> str | None:
        """Keep what is in the workspace and not merged; return the commit that holds it, or None when nothing is."""
        commit = await self._world.workspaces.snapshot(order.workspace.path, repository, order.ref, found)
        if commit is None:
            return None
        if order.merged_tree is not None and commit == order.workspace.base:
            # It was made as new for another task.
            await self._world.repositories.delete_ref(repository, order.ref)
            return None
        if order.merged_tree is not None and await self._world.repositories.tree(repository, commit) == order.merged_tree:
            await self._world.repositories.delete_ref(repository, order.ref)
            return None
        return commit
