"""Stillness: while a workspace is looked at from outside, nothing of its agent goes on in it.

What an agent has started may go on in the background when its turn is over. It could exchange a directory for a link between
two looks of git, or other files for those that were committed while the gate is run over them.

A person may hold an agent still as well (``kapelle freeze``), until that person lets it go on, whoever leads by then. Who looks
and who freezes do not thaw each other: what one lets go of stays still as long as the other holds it.

A process that waits for a disk stands still only when that answers. It is no fault of its agent's: who was to look does so
later, and meanwhile leaves the task as it is.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta

from kapelle.core.agent import Agent
from kapelle.core.attempt import home_of
from kapelle.core.errors import KapelleError, NotStill
from kapelle.core.event import Event
from kapelle.core.ids import AgentId, AttemptId
from kapelle.core.isolation import Place
from kapelle.core.isolation_events import SandboxLeft
from kapelle.core.store import Tx, View
from kapelle.core.task import Task, Wait
from kapelle.engine.boxing import sandbox_of
from kapelle.engine.ending import wait
from kapelle.engine.world import World

LOOK, PERSON = "look", "person"
"""Who may hold an agent still: a stage that looks at its workspace, and a person."""
AGAIN = timedelta(seconds=15)
"""How long to leave it alone before it is tried again: it was held for some seconds, all but what waits."""


class Restless(Exception):
    """Something of an attempt's agent does not stand still; nothing was looked at."""

    def __init__(self, attempt_id: AttemptId, reason: str) -> None:
        super().__init__(reason)
        self.attempt_id = attempt_id
        self.reason = reason


def leave_for_now(tx: Tx, task: Task, reason: str) -> datetime:
    """Write down why *task* waits, and return when it is tried again."""
    until = tx.now + AGAIN
    wait(tx, task, Wait.RETRY, reason, until=until)
    return until


@asynccontextmanager
async def still(world: World, attempt_id: AttemptId) -> AsyncGenerator[None]:
    """Hold everything still that the agent of an attempt has started; what cannot be let go again is an event.

    Raises:
        Restless: something does not stand still just now.
        KapelleError: something cannot be held still.
    """
    async with AsyncExitStack() as frozen:
        for agent, name, place in await _live(world, lambda agent: agent.attempt_id == attempt_id):
            frozen.push_async_callback(_thaw, world, agent, name, place)
            try:
                await _hold(world, agent, name, place, LOOK)
            except NotStill as error:
                raise Restless(attempt_id, error.message) from error
        yield


async def _thaw(world: World, agent: Agent, name: str, place: Place) -> None:
    try:
        await _let_go(world, agent, name, place, LOOK)
    except KapelleError as error:
        # What was found meanwhile holds all the same.
        said = SandboxLeft(sandbox=name, reason=error.in_full)
        await world.store.transact(lambda tx: tx.log(said), term=world.term)


async def _hold(world: World, agent: Agent, name: str, place: Place, who: str) -> None:
    async with world.holds.locks[agent.agent_id]:
        holders = world.holds.by[agent.agent_id]
        if not holders:
            await sandbox_of(world, name).freeze(place, agent.process)
        holders.add(who)


async def _let_go(world: World, agent: Agent, name: str, place: Place, who: str) -> None:
    async with world.holds.locks[agent.agent_id]:
        holders = world.holds.by[agent.agent_id]
        holders.discard(who)
        if not holders:
            await sandbox_of(world, name).thaw(place, agent.process)
            del world.holds.by[agent.agent_id]


async def freeze(world: World, agent_id: AgentId) -> str:
    """Hold an agent still for a person, and its time limit with it; return why that cannot be, or nothing."""
    for agent, name, place in await _live(world, lambda agent: agent.agent_id == agent_id):
        try:
            await world.host.stop_clock(agent.folder)
            await _hold(world, agent, name, place, PERSON)
        except KapelleError as error:
            with suppress(KapelleError):
                await _let_go(world, agent, name, place, PERSON)
            await world.host.start_clock(agent.folder)
            return error.in_full
    return ""


async def thaw(world: World, agent_id: AgentId) -> Event | None:
    """Let an agent go on that a person held still; return what is to be said when it cannot be told to."""
    for agent, name, place in await _live(world, lambda agent: agent.agent_id == agent_id):
        try:
            await _let_go(world, agent, name, place, PERSON)
        except KapelleError as error:
            return SandboxLeft(run_id=agent.run_id, task_id=agent.task_id, sandbox=name, reason=error.in_full)
        finally:
            await world.host.start_clock(agent.folder)
    return None


async def let_go(world: World) -> list[Event]:
    """Let everything go on that an earlier leader held still when it was ended, but for what a person holds still.

    Returned is what is to be said.
    """
    said: list[Event] = []
    world.holds.forget()
    for agent, name, place in await _live(world, lambda _: True):
        try:
            if agent.frozen_by:
                # It may have been asked for and not been done.
                await world.host.stop_clock(agent.folder)
                await _hold(world, agent, name, place, PERSON)
            else:
                await sandbox_of(world, name).thaw(place, agent.process)
        except KapelleError as error:
            # Its agent has a time limit, and everything else can be led meanwhile.
            said.append(SandboxLeft(sandbox=name, reason=error.in_full))
    return said


async def _live(world: World, which: Callable[[Agent], bool]) -> Sequence[tuple[Agent, str, Place]]:
    """Return those of the live agents that are meant, with the names of their sandboxes, and their places."""

    def read(view: View) -> list[tuple[Agent, str, Place]]:
        found: list[tuple[Agent, str, Place]] = []
        for agent in view.agents.live():
            if agent.process is None or not which(agent):
                continue
            run, attempt = view.runs.get(agent.run_id), view.attempts.get(agent.attempt_id)
            if run is None or attempt is None or attempt.workspace_id is None:
                continue
            row = view.agents.workspace(attempt.workspace_id)
            if row is None:
                continue
            config = run.spec.config(agent.config)
            place = Place(
                workspace=row.path,
                folder=agent.folder,
                home=world.folders.home(home_of(attempt)),
                store_id=world.store.store_id,
                key=agent.agent_id,
                owned=row.owned,
                isolation=config.isolation,
            )
            found.append((agent, config.sandbox, place))
        return found

    return await world.store.read(read)
