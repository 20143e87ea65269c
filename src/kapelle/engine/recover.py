"""Recover: what a new leader does before anything else, and what must not be left lying about."""

from asyncio import TaskGroup
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from kapelle.core.agent import ProcessRef
from kapelle.core.errors import KapelleError
from kapelle.core.events import Event, LeadTaken, SnapshotKept
from kapelle.core.merge import Integration
from kapelle.core.pool import Spare
from kapelle.core.pool_events import SpareEnded
from kapelle.core.store import Tx, View
from kapelle.engine import spares
from kapelle.engine.integrate import Integrator, integration_ref
from kapelle.engine.meter import book_lost
from kapelle.engine.reaping import reap
from kapelle.engine.secrets import sweep
from kapelle.engine.set_back import move_earlier
from kapelle.engine.stillness import let_go
from kapelle.engine.world import World


class RecoverStage:
    """Runs once when the lead is taken.

    Live agents are adopted by the execute stage, which finds them in the store; this stage ends processes that carry this
    store's id and are in no live row, after a snapshot of whatever they work in, and lets the integration refs stand where the
    store says. A workspace without a row is there when the store was restored from a backup that is older.
    """

    name = "recover"

    def __init__(self, world: World, me: ProcessRef) -> None:
        self._world = world
        self._me = me
        self._done = False

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        if self._done:
            return None
        self._done = True
        integrations = await self._world.store.transact(self._begin, term=self._world.term)
        if said := await let_go(self._world):
            await self._world.store.transact(lambda tx: tx.log(*said), term=self._world.term)
        integrator = Integrator(self._world)
        for integration in integrations:
            # A repository may be gone by now; that keeps nobody from leading.
            with suppress(KapelleError):
                await self._keep_what_is_ahead(integration)
                await integrator.move_ref(integration)
        kept = await self._end_spares()
        kept |= await self._keep_orphans()
        await reap(self._world, self._me, grace=timedelta(seconds=2))
        await self._world.store.read(lambda view: sweep(self._world, view))
        # What they did while they were being ended is kept in the place of what was kept before.
        kept |= await self._clear_orphans()
        if kept:
            await self._world.store.transact(lambda tx: tx.log(*kept.values()), term=self._world.term)
        return now

    def _begin(self, tx: Tx) -> Sequence[Integration]:
        move_earlier(tx)
        tx.log(LeadTaken(term=tx.term, pid=self._me.pid))
        book_lost(tx)
        return tx.changes.integrations()

    async def _end_spares(self) -> dict[str, Event]:
        """End the spares of earlier leaders: nobody can speak to them any more. Return what was kept of their workspaces.

        A store that was restored from a backup may take an agent for a spare that had a task by then.
        """
        left = await self._world.store.read(lambda view: list(view.spares.all()))
        kept: dict[str, Event] = {}
        said: list[Event] = []

        async def one(spare: Spare) -> None:
            reason = "whoever led has ended"
            try:
                if spare.make.repository is not None and spare.base is not None:
                    kept.update(await self._keep(spare.path, spare.make.repository))
                await spares.end(self._world, spares.deployment_of(self._world, spare, ""))
            except KapelleError as error:
                # What is left belongs to nobody, and is looked for next.
                reason = f"{reason}; {error.in_full}"
            said.append(SpareEnded(agent_id=spare.agent_id, config=spare.config.name, reason=reason))

        # Together: one that hangs takes its time to end.
        async with TaskGroup() as group:
            for spare in left:
                group.create_task(one(spare))

        def write(tx: Tx) -> None:
            for spare in left:
                tx.spares.drop(spare.agent_id)
            tx.log(*said)

        if left:
            await self._world.store.transact(write, term=self._world.term)
        return kept

    # --- What an older store knows nothing of ---

    async def _keep_what_is_ahead(self, integration: Integration) -> None:
        """Keep merged work that the store does not know of, before its ref goes back to where the store says."""
        store_id, repositories = self._world.store.store_id, self._world.repositories
        ref = integration_ref(store_id, integration.target, integration.line)
        now = await repositories.resolve(integration.repository, ref)
        if now is None or await repositories.is_ancestor(integration.repository, now, integration.tip):
            return
        await repositories.move_ref(integration.repository, f"refs/kapelle/{store_id}/kept/ahead/{now}", now, None)

    async def _keep_orphans(self) -> dict[str, Event]:
        """Keep what is in workspaces that no row knows, each under a ref of its own."""
        found: dict[str, Event] = {}
        for path, repository in await self._orphans():
            # It is left as it is when it cannot be kept; so is one of a repository that this store does not know.
            with suppress(KapelleError):
                found |= await self._keep(path, repository)
        return found

    async def _clear_orphans(self) -> dict[str, Event]:
        """Keep them as they were left when their agents had been ended, and clear them away."""
        found: dict[str, Event] = {}
        for path, repository in await self._orphans():
            with suppress(KapelleError):
                found |= await self._keep(path, repository)
                await self._world.workspaces.remove(path, repository)
        return found

    async def _keep(self, path: str, repository: str) -> dict[str, Event]:
        ref = f"refs/kapelle/{self._world.store.store_id}/kept/orphan/{path.rpartition('/')[2]}"
        commit = await self._world.workspaces.snapshot(path, repository, ref)
        return {} if commit is None else {ref: SnapshotKept(ref=ref, commit=commit)}

    async def set_orphans_aside(self) -> dict[str, str]:
        """Move what could not be kept out of the way; return where each now is. Only when a person asks for it.

        It may be a worktree of a repository that is away just now, and will be kept by a leader once that is there again.
        """
        folder = self._world.folders.orphans
        return {path: await self._world.workspaces.set_aside(path, folder) for path in await self._without_a_row()}

    async def _without_a_row(self) -> list[str]:
        present = await self._world.workspaces.present(self._world.folders.workspaces)
        known = await self._world.store.read(lambda view: {row.path for row in view.agents.workspaces()})
        return [path for path in present if path not in known]

    async def _orphans(self) -> list[tuple[str, str]]:
        """Return the workspaces without a row, each with the repository that it may belong to."""
        orphans = await self._without_a_row()
        repositories = await self._world.store.read(_repositories) if orphans else []
        return [(path, repository) for path in orphans for repository in repositories]


def _repositories(view: View) -> list[str]:
    runs = [overview.run.spec.repository for overview in view.runs.overviews(limit=1_000_000)]
    return sorted({name for name in runs if name is not None})
