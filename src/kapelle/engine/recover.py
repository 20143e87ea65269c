"""Recover: what a new leader does before anything else, and what must not be left lying about."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from kapelle.core.agent import ProcessRef
from kapelle.core.errors import KapelleError
from kapelle.core.events import AgentReaped, LeadTaken
from kapelle.core.merge import Integration
from kapelle.core.store import Tx
from kapelle.engine.integrate import Integrator
from kapelle.engine.world import World


class RecoverStage:
    """Runs once when the lead is taken.

    Live agents are adopted by the execute stage, which finds them in the store; this stage ends processes that carry this
    store's id and are in no live row, and lets the integration refs stand where the store says.
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
        integrator = Integrator(self._world)
        for integration in integrations:
            # A repository may be gone by now; that keeps nobody from leading.
            with suppress(KapelleError):
                await integrator.move_ref(integration)
        reaped = await self._reap()
        if reaped:
            await self._world.store.transact(
                lambda tx: tx.log(*[AgentReaped(pid=process.pid) for process in reaped]), term=self._world.term
            )
        return now

    def _begin(self, tx: Tx) -> Sequence[Integration]:
        tx.log(LeadTaken(term=tx.term, pid=self._me.pid))
        return tx.changes.integrations()

    async def _reap(self) -> list[ProcessRef]:
        """End what carries this store's id and belongs to no live agent."""
        live = await self._world.store.read(lambda view: {agent.process for agent in view.agents.live()})
        reaped: list[ProcessRef] = []
        for process in await self._world.host.leftovers(self._world.store.store_id):
            if process in live or process == self._me:
                continue
            folder = f"{self._world.folders.root}/reaped/{process.pid}"
            await self._world.host.end(process, folder, grace=timedelta(seconds=2))
            reaped.append(process)
        return reaped
