"""Agent configs (configured kinds of agent) and agents (live ones), with the table of an agent's states.

One that was started beforehand and has no task yet is a spare (``core.pool``): it is idle.

idle -> deploying -> active -> completing -> stopped
             |
             +--> recovering -> active | stopped

Each process is an agent of its own. One that goes on in the conversation of an agent that is gone (it crashed, it was ended
to be asked anew, its machine was started again) is recovering until it is there.
"""

from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum

from kapelle.core.errors import IllegalTransition
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId
from kapelle.core.isolation import Isolation
from kapelle.core.patience import Patience
from kapelle.core.rules import Rules
from kapelle.core.secrets import GitLogin, McpServer


@frozen
class Asks:
    """What an agent is reckoned to need of its host: so much is promised to it as long as it lives."""

    memory: int | None = None
    """Bytes; None: as much as it may use at most, where that is limited."""
    cpus: float = 0.0


class Reuse(StrEnum):
    """Whether a program goes on to another task when it is through with one."""

    NEVER = "never"
    SAME_RUN = "same-run"
    """To others of the same run and config, in the same workspace, which is made as new, and in a new conversation."""


@frozen
class PoolRules:
    """How many agents of a config there are, at work and spare together, and how many of them wait beforehand."""

    warm: int = 0
    """Spares that are always there: started, in a prepared workspace, without a task."""
    least: int = 0
    """Agents that there are at least, spares included."""
    most: int | None = None
    """Agents that there are at most, spares included. Where it is more than the rest asks for, spares follow the queue."""
    idle: timedelta = timedelta(minutes=10)
    """How long a spare that nothing asks for any more may wait before it is ended."""


@frozen
class AgentConfig:
    """A configured kind of agent: which program, with which model, prompt, tools and limits."""

    name: str
    program: str = "claude"
    model: str | None = None
    prompt: str = ""
    """Text that is added to the program's own system prompt."""
    technologies: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    """Tools the agent may use without asking, in the program's own notation, such as ``Bash(python3 *)``."""
    deny: tuple[str, ...] = ()
    permission_mode: str | None = None
    max_turns: int | None = None
    function: str | None = None
    """For ``program: python``: the entry point of the function, ``package.module:function``."""
    terminal: str = ""
    """``tmux``: each of its agents has a session in which people see what it says; empty: none has."""
    sandbox: str = "process"
    isolation: Isolation = Isolation()
    """What is asked of the sandbox."""
    rules: Rules = field(default_factory=Rules)
    env: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    """How many agents of this config may be live at once."""
    asks: Asks = Asks()
    pool: PoolRules = PoolRules()
    reuse: Reuse = Reuse.NEVER
    secrets: tuple[tuple[str, str], ...] = ()
    """What its agents must have: name, and the reference to the value, which is never kept."""
    git: tuple[GitLogin, ...] = ()
    mcp: tuple[McpServer, ...] = ()
    patience: Patience = Patience()
    """How long its agents may look still."""

    @property
    def abilities(self) -> frozenset[str]:
        """Everything that it can do: what a task may require."""
        return frozenset({*self.capabilities, *self.technologies})


class AgentState(StrEnum):
    """Where a live agent stands."""

    IDLE = "idle"
    DEPLOYING = "deploying"
    ACTIVE = "active"
    COMPLETING = "completing"
    STOPPED = "stopped"
    RECOVERING = "recovering"


AGENT_TRANSITIONS: dict[AgentState, frozenset[AgentState]] = {
    AgentState.IDLE: frozenset({AgentState.DEPLOYING, AgentState.STOPPED}),
    AgentState.DEPLOYING: frozenset({AgentState.ACTIVE, AgentState.RECOVERING, AgentState.STOPPED}),
    AgentState.ACTIVE: frozenset({AgentState.COMPLETING, AgentState.STOPPED}),
    AgentState.COMPLETING: frozenset({AgentState.STOPPED}),
    AgentState.RECOVERING: frozenset({AgentState.ACTIVE, AgentState.STOPPED}),
    AgentState.STOPPED: frozenset(),
}


@frozen
class ProcessRef:
    """A process that can be told from every other, also after a restart of Kapelle or of the machine.

    A pid alone is used again by the system; boot id, pid and start time together are not.
    """

    boot_id: str
    pid: int
    started: str
    """The start time as the system gives it; only ever compared for equality."""


@frozen
class Agent:
    """A live agent: one process on one host, working on one attempt."""

    agent_id: AgentId
    run_id: RunId
    task_id: TaskId
    attempt_id: AttemptId
    term: int
    config: str
    host: str
    state: AgentState = AgentState.DEPLOYING
    folder: str = ""
    """The folder on the host that holds spool, standard error and exit code."""
    process: ProcessRef | None = None
    offset: int = 0
    """How many bytes of the spool have been read and committed."""
    deadline_at: datetime
    created_at: datetime
    stopped_at: datetime | None = None
    frozen_by: str = ""
    """Who wants it to stand still; empty when nobody does."""
    frozen_at: datetime | None = None
    """Since when it stands still for that."""
    rested: timedelta = timedelta(0)
    """For how long it stood still for that, up to now or to its end; not since ``frozen_at``."""
    by_hand: bool = False
    """Whether a person works with its program's own screen, in the engine's place."""
    ends_at: datetime | None = None
    """When it is ended in the middle of its turn, if it must be: a person has stopped it."""
    token: str = field(default="", repr=False)
    """The agent's own token at the model gateway: worth nothing anywhere else."""


def move(agent: Agent, to: AgentState, now: datetime) -> Agent:
    """Return *agent* in the state *to*.

    Raises:
        IllegalTransition: the table has no such transition.
    """
    if to not in AGENT_TRANSITIONS[agent.state]:
        raise IllegalTransition("agent", agent.agent_id, agent.state, to)
    if to is not AgentState.STOPPED:
        return replace(agent, state=to, stopped_at=None)
    return replace(agent, state=to, stopped_at=now, rested=agent.rested + _standing(agent, now))


def thawed(agent: Agent, now: datetime) -> Agent:
    """Return *agent*, which stood still, as it goes on: its time limit has stood still with it."""
    standing = _standing(agent, now)
    return replace(agent, frozen_at=None, rested=agent.rested + standing, deadline_at=agent.deadline_at + standing)


def _standing(agent: Agent, now: datetime) -> timedelta:
    return timedelta(0) if agent.frozen_at is None else max(now - agent.frozen_at, timedelta(0))
