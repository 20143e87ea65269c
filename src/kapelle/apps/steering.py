"""What a person asks of the leader about one agent, about everything, or about what waits: the same from every door."""

from kapelle.apps.agents import until_frozen
from kapelle.apps.desk import Desk
from kapelle.apps.inbox import Item, Said, answer_to
from kapelle.apps.principal import principal
from kapelle.core.agent import Agent
from kapelle.core.errors import NotPossibleNow
from kapelle.core.ids import PromptId, RunId
from kapelle.core.requests import Halt, Unhalt
from kapelle.core.steering import Freeze, Send, StopAgent, Thaw
from kapelle.core.store import View

NONE = RunId("")


def who(desk: Desk) -> str:
    """Return who asks."""
    return principal(desk.world.store.store_id)


def task_of(view: View, agent: Agent) -> str:
    """Return the name of the task that *agent* does."""
    task = view.tasks.get(agent.task_id)
    return task.name if task is not None else agent.task_id


async def must_lead(desk: Desk) -> None:
    """See that somebody leads.

    Raises:
        NotPossibleNow: nobody does.
    """
    if await desk.leader() is None:
        raise NotPossibleNow("nobody leads, so nothing can be done about an agent", remedy="kapelle resume")


async def freeze(desk: Desk, agent: Agent) -> None:
    """Hold *agent* still, and wait until it stands.

    Raises:
        KapelleError: it cannot be held.
    """
    await must_lead(desk)
    await desk.ask(Freeze(run_id=agent.run_id, agent_id=agent.agent_id), who(desk))
    await until_frozen(desk, agent.agent_id)


async def thaw(desk: Desk, agent: Agent) -> None:
    """Let *agent* go on.

    Raises:
        KapelleError: it does not stand still.
    """
    await must_lead(desk)
    await desk.ask(Thaw(run_id=agent.run_id, agent_id=agent.agent_id), who(desk))


async def stop(desk: Desk, agent: Agent, *, at_once: bool = False) -> None:
    """End *agent*, when its turn is over or *at_once*.

    Raises:
        KapelleError: it has ended already.
    """
    await desk.ask(StopAgent(run_id=agent.run_id, agent_id=agent.agent_id, at_once=at_once), who(desk))


async def speak(desk: Desk, agent: Agent, text: str) -> PromptId:
    """Ask for *text* to be said to *agent*; return the id by which it is known.

    Raises:
        KapelleError: it cannot be said.
    """
    prompt_id = PromptId(desk.world.chance.uuid())
    await desk.ask(Send(run_id=agent.run_id, agent_id=agent.agent_id, prompt_id=prompt_id, text=text), who(desk))
    return prompt_id


async def halt(desk: Desk, reason: str = "") -> None:
    """Let no model call pass and no agent work, until that is lifted."""
    await desk.ask(Halt(run_id=NONE, reason=reason), who(desk))


async def unhalt(desk: Desk, reason: str = "") -> None:
    """Let everything go on that was halted.

    Raises:
        KapelleError: nothing is halted.
    """
    await desk.ask(Unhalt(run_id=NONE, reason=reason), who(desk))


async def answer(desk: Desk, which: str, said: Said, *, reason: str = "", amount: str = "") -> Item:
    """Answer what is called *which* in the inbox; return what that was. *amount* is by how much a budget is raised.

    Raises:
        KapelleError: there is no such thing, or it cannot be answered like that.
    """
    item, body = await desk.world.store.read(lambda view: answer_to(view, which, said, reason, amount))
    await desk.ask(body, who(desk))
    return item
