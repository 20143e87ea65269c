"""Showing: a session for each agent whose config asks for one, in which people see what it says. Nobody waits for it."""

from kapelle.core.agent import Agent, AgentConfig
from kapelle.core.errors import KapelleError
from kapelle.core.event import Event
from kapelle.core.steering_events import TerminalFailed
from kapelle.core.store import View
from kapelle.engine.world import World


def has_session(config: AgentConfig, agent: Agent, *, own: bool) -> bool:
    """Say whether *agent* is to have a session; *own*: its program has a screen of its own, which is better."""
    return bool(config.terminal) and not own and not agent.by_hand


async def show(world: World, agent: Agent) -> Event | None:
    """Open the session of *agent*; return what is to be said when that fails."""
    readable = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in agent.config)
    try:
        await world.terminal.open(agent.agent_id, world.folders.terminal(agent.agent_id), f"{readable}-{agent.agent_id}")
    except KapelleError as error:
        reason = error.in_full
        return TerminalFailed(run_id=agent.run_id, task_id=agent.task_id, agent_id=agent.agent_id, reason=reason)
    return None


async def left_over(world: World) -> tuple[str, ...]:
    """Return the agents that have a session still and live no more."""
    live = await world.store.read(_live)
    return tuple(name for name in await world.terminal.within(f"{world.folders.root}/terminals") if name not in live)


async def close_left_over(world: World) -> None:
    """Close the sessions of agents that live no more."""
    for name in await left_over(world):
        await world.terminal.close(f"{world.folders.root}/terminals/{name}")


def _live(view: View) -> frozenset[str]:
    return frozenset(agent.agent_id for agent in view.agents.live())
