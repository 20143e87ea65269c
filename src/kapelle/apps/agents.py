"""Agents, as people name and see them: by id, or by the task that they do; the same for every door."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kapelle.apps.reader import Found, Reader, find, rest
from kapelle.core.agent import Agent, AgentState
from kapelle.core.budget import Spend
from kapelle.core.errors import Ambiguous, NotFound, NotPossibleNow
from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId
from kapelle.core.pool import Spare
from kapelle.core.run import Run
from kapelle.core.steering_events import AgentNotFrozen
from kapelle.core.store import View
from kapelle.core.task import Task

PREFIX = "g-"
"""How the ids of agents begin."""
MOST = 200
"""Agents that have ended and are listed."""
LOOK = 0.05
"""Seconds between looks at what another process does."""


@frozen
class AgentReport:
    """One agent, as shown."""

    agent: Agent
    run: Run
    task: Task | None
    spend: Spend

    @property
    def state(self) -> str:
        """Its state, or what a person has made of it."""
        agent = self.agent
        if agent.state is AgentState.STOPPED:
            return agent.state.value
        if agent.frozen_by:
            return "frozen" if agent.frozen_at is not None else "freezing"
        if agent.by_hand:
            return "taken over"
        return "stopping" if agent.ends_at is not None else agent.state.value

    @property
    def task_name(self) -> str:
        """What it does."""
        return self.task.name if self.task is not None else ""


def agents(view: View, *, everything: bool = False, spent: Mapping[AgentId, Spend] | None = None) -> list[AgentReport]:
    """Return the live agents, the oldest first, or *everything* that is known of any, the newest first.

    Where it is known what they have *spent*, their calls are not added up again.
    """
    found: Sequence[Agent] = view.agents.newest(MOST) if everything else view.agents.live()
    if spent is None:
        spent = spent_by_agents(view, found)
    runs = {agent.run_id: view.runs.get(agent.run_id) for agent in found}
    return [
        AgentReport(agent=agent, run=run, task=view.tasks.get(agent.task_id), spend=spent.get(agent.agent_id, Spend()))
        for agent in found
        if (run := runs[agent.run_id]) is not None
    ]


def spent_by_agents(view: View, found: Iterable[Agent]) -> dict[AgentId, Spend]:
    """Return what the agents of the runs of those that were *found* have spent."""
    spent: dict[AgentId, Spend] = {}
    for run_id in {agent.run_id for agent in found}:
        spent |= view.agents.spent(run_id)
    return spent


def agent_json(report: AgentReport) -> dict[str, Any]:
    """Return what programs are told of an agent."""
    agent = report.agent
    return {
        "id": agent.agent_id,
        "config": agent.config,
        "state": agent.state.value,
        "shown_as": report.state,
        "host": agent.host,
        "pid": agent.process.pid if agent.process is not None else None,
        "run": {"id": report.run.run_id, "name": report.run.spec.name},
        "task": {"id": agent.task_id, "name": report.task_name},
        "frozen_by": agent.frozen_by or None,
        "by_hand": agent.by_hand,
        "since": agent.created_at.isoformat(),
        "stopped_at": _time(agent.stopped_at),
        "deadline_at": _time(agent.deadline_at),
        "model_calls": report.spend.calls,
        "tokens": report.spend.usage.total,
        "cost_usd": report.spend.cost_usd,
    }


def spare_json(spare: Spare) -> dict[str, Any]:
    """Return what programs are told of an agent that has no task yet."""
    return {
        "id": spare.agent_id,
        "config": spare.config.name,
        "state": spare.stands.value,
        "shown_as": spare.stands.value,
        "host": spare.host,
        "pid": spare.process.pid if spare.process is not None else None,
        "run": None,
        "task": None,
        "since": spare.created_at.isoformat(),
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def agent_named(view: View, word: str, *, live: bool = True) -> Agent:
    """Return the agent that *word* means: its id or enough of its beginning, or the task that it does (also RUN/TASK).

    Of a task, the agent is meant that does it now or, unless it has to be *live*, did it last.

    Raises:
        NotFound: there is no such agent.
        Ambiguous: there are several.
        NotPossibleNow: it has to be live, and is not.
    """
    agent = _by_id(view, word) if word.startswith(PREFIX) else None
    if agent is not None:
        if live and agent.state is AgentState.STOPPED:
            raise NotPossibleNow(f"agent {agent.agent_id} has ended", remedy="`kapelle agents` lists those that live.")
        return agent
    task = task_named(view, word)
    newest = view.agents.newest(1, task.task_id)
    if not newest or (live and newest[0].state is AgentState.STOPPED):
        raise NotPossibleNow(
            f"task {task.name} has no agent just now: it is {_standing(task)}",
            remedy=f"`kapelle explain {task.name}` says more.",
        )
    return newest[0]


def _standing(task: Task) -> str:
    return task.state.value + (f" and waits for {task.waits_for.value}" if task.waits_for is not None else "")


def _by_id(view: View, word: str) -> Agent | None:
    exact = view.agents.get(AgentId(word))
    found = [exact] if exact is not None else list(view.agents.find(word))
    if len(found) > 1:
        raise Ambiguous(f"{word} is the beginning of more than one id")
    return found[0] if found else None


def task_named(view: View, word: str) -> Task:
    """Return the task that *word* means: its id or name, or RUN/TASK.

    Raises:
        NotFound: nothing is called so.
        KapelleError: it means several, or a run.
    """
    of_run, slash, name = word.rpartition("/")
    unknown = NotFound(f"no agent and no task is called {word}", remedy="`kapelle agents` lists the agents that live.")
    try:
        found = find(view, of_run if slash else word)
    except NotFound as error:
        raise unknown from error
    if slash:
        named = [task for task in view.tasks.of_run(found.run.run_id) if name in {task.name, task.task_id}]
        if not named:
            raise unknown
        return named[0]
    if found.task is None:
        raise NotPossibleNow(f"{word} is a run, not an agent", remedy="`kapelle agents` lists the agents that live.")
    return found.task


def found_agent(view: View, word: str) -> Found:
    """Return what *word* means for those who only look: an agent, a task (also RUN/TASK) or a run.

    Raises:
        KapelleError: nothing is called so, or several things are.
    """
    agent = _by_id(view, word) if word.startswith(PREFIX) else None
    run = view.runs.get(agent.run_id) if agent is not None else None
    if agent is not None and run is not None:
        return Found(run=run, task=view.tasks.get(agent.task_id), agent=agent)
    if "/" in word:
        task = task_named(view, word)
        run = view.runs.get(task.run_id)
        if run is not None:
            return Found(run=run, task=task)
    return find(view, word)


async def until_frozen(reader: Reader, agent_id: AgentId) -> None:
    """Wait until an agent stands still that is to.

    Raises:
        NotPossibleNow: it cannot be held still.
    """
    while True:
        agent = await reader.store.read(lambda view: view.agents.get(agent_id))
        if agent is None or agent.state is AgentState.STOPPED:
            raise NotPossibleNow(f"agent {agent_id} has ended meanwhile", remedy="`kapelle agents` lists those that live.")
        if agent.frozen_at is not None:
            return
        if not agent.frozen_by:
            reason = await reader.store.read(lambda view, agent=agent: _why_not(view, agent))
            raise NotPossibleNow(f"agent {agent_id} does not stand still: {reason}", remedy="Try again, or `kapelle stop` it.")
        if await reader.leader() is None:
            raise NotPossibleNow("nobody leads any more; it is frozen as soon as somebody does", remedy="kapelle resume")
        await rest(LOOK)


def _why_not(view: View, agent: Agent) -> str:
    said = view.events_of_task(agent.run_id, agent.task_id, AgentNotFrozen.kind, limit=1)
    last = said[-1].event if said else None
    return last.reason if isinstance(last, AgentNotFrozen) else "it was thawed meanwhile"
