"""The pool: spares, which were started before there was a task for them, and how many of them there should be.

A spare is an agent in the state idle: a program that waits for its first prompt, in a workspace that is ready. It is used once:
whatever task it is given, it ends with that. It belongs to the leader that started it: with that one its input ends, and so
does its program, so the next leader begins with a pool of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Protocol

from kapelle.core.agent import AgentConfig, AgentState, PoolRules, ProcessRef
from kapelle.core.frozen import frozen
from kapelle.core.gateway import Upstream
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId, WorkspaceId
from kapelle.core.run import RunSpec
from kapelle.core.task import TaskSpec, WorkspaceKind

LASTING = timedelta(seconds=2)
"""How long tasks must have waited for an agent before spares are started for them: what is placed at once needs none."""


def make_of(spec: RunSpec, config: str) -> RunSpec | None:
    """Return everything of *spec* that is settled when an agent of *config* is started, and nothing else.

    Tasks of runs for which it is equal can be given the same spare. None where none can be started beforehand: files that are
    copied in and values of secrets are those of the moment at which a task gets its agent, and a spare would have older ones.
    """
    if spec.repository is None or spec.target is None or spec.workspace.copy or spec.config(config).secrets:
        return None
    return RunSpec(
        name="",
        project=spec.project,
        repository=spec.repository,
        target=spec.target,
        tasks=(),
        configs=(spec.config(config),),
        workspace=spec.workspace,
        upstream=_as_seen(spec.upstream),
    )


def _as_seen(upstream: Upstream) -> Upstream:
    """Return what an agent's program sees of where its model calls go: behind the gateway, only whose login it uses."""
    if upstream.bypass:
        return Upstream(base_url=upstream.base_url, bypass=True)
    return Upstream() if upstream.own_login else Upstream(credential="")


def fit_of(make: RunSpec) -> str:
    """Return a short name that equal makes have in common, and others do not."""
    return blake2b(repr(make).encode(), digest_size=12).hexdigest()


def suits(task: TaskSpec, upstream: Upstream) -> bool:
    """Say whether a spare can be given *task*: nothing that is asked of its agent has to be said when that is started."""
    # Without the gateway it is the program that holds the budget.
    told = upstream.bypass and task.budget.usd is not None
    return task.workspace is WorkspaceKind.WORKTREE and task.result_schema is None and not told


class SpareState(StrEnum):
    """How far a spare is."""

    STARTING = "starting"
    READY = "ready"
    RENEWING = "renewing"
    """Its workspace is brought up to date."""
    ENDING = "ending"


STANDS = {
    SpareState.STARTING: AgentState.DEPLOYING,
    SpareState.READY: AgentState.IDLE,
    SpareState.RENEWING: AgentState.IDLE,
    SpareState.ENDING: AgentState.COMPLETING,
}


@frozen
class Spare:
    """An agent without a task. The ids are those that its attempt will have: its folders are called by them."""

    agent_id: AgentId
    attempt_id: AttemptId
    workspace_id: WorkspaceId
    conversation_id: str
    make: RunSpec
    """What it was started by, of a run without tasks (``make_of``)."""
    fit: str
    term: int
    host: str
    state: SpareState = SpareState.STARTING
    path: str
    """Its workspace."""
    base: str | None = None
    """The commit that the workspace stands at."""
    first_port: int | None = None
    folder: str
    process: ProcessRef | None = None
    reason: str = ""
    """Why it is being ended."""
    created_at: datetime
    ready_at: datetime | None = None
    looked_at: datetime | None = None
    """When its base was last found to be the newest."""
    merged: str = ""
    """How far the merge queue of its target had come then."""
    run_id: RunId | None = None
    """The run in which it had a task: it is used again there and nowhere else. None: it had none yet."""
    home: AttemptId | None = None
    """The attempt whose home it has; None: its own."""
    offset: int = 0
    """How much of its spool belongs to earlier tasks, in bytes."""
    bounded: int = 0
    """The longest time limit that it had, in seconds: one that is shorter cannot be set any more."""
    token: str = field(default="", repr=False)

    @property
    def config(self) -> AgentConfig:
        """What kind of agent it is."""
        return self.make.configs[0]

    @property
    def stands(self) -> AgentState:
        """Where it stands among all agents."""
        return STANDS[self.state]


def fits(spare: Spare, fit: str, run_id: RunId, task: TaskSpec) -> bool:
    """Say whether *spare*, once it is ready, can be given *task* of a run whose agents are made as *fit* says."""
    return spare.fit == fit and spare.run_id in {None, run_id} and task.timeout.total_seconds() >= spare.bounded


@frozen
class StandingPool:
    """How many agents of a config a person wants, whatever the configuration says, until they say otherwise."""

    key: str
    """What it is known by: there is one for each config of a project (``key_of``)."""
    project: str
    config: str
    wanted: int
    """Agents, at work and spare together."""
    spec: RunSpec
    """Of a run without tasks: what its spares are made by."""
    principal: str
    at: datetime


def key_of(project: str, config: str) -> str:
    """Return the key of the standing pool of a project's *config*."""
    return f"{project}\n{config}"


@frozen
class Assignment:
    """A task that a person gave to a config."""

    task_id: TaskId
    config: str
    forced: bool
    """Whatever limits say."""
    principal: str
    at: datetime


class SpareTable(Protocol):
    """Spares, and what persons want of the pool."""

    def put(self, spare: Spare) -> None:
        """Add or replace *spare*."""
        ...

    def get(self, agent_id: AgentId) -> Spare | None:
        """Return the spare, or None."""
        ...

    def drop(self, agent_id: AgentId) -> None:
        """Forget a spare that is gone, or an agent with a task by now."""
        ...

    def all(self) -> Sequence[Spare]:
        """Return all spares, the oldest first."""
        ...

    def put_standing(self, pool: StandingPool) -> None:
        """Add or replace what a person wants."""
        ...

    def drop_standing(self, key: str) -> None:
        """Let the configuration say how many there are; no effect when it does."""
        ...

    def standing(self) -> Sequence[StandingPool]:
        """Return all that persons want, by project and config."""
        ...

    def assign(self, assignment: Assignment) -> None:
        """Add or replace what a person said of a task."""
        ...

    def unassign(self, task_id: TaskId) -> None:
        """Forget it; no effect where nothing was said."""
        ...

    def assignments(self) -> Sequence[Assignment]:
        """Return all of them, the first first."""
        ...


# --- How many ---------------------------------------------------------------------------------------------------------


@frozen
class Stock:
    """What there is of one make, and what is asked of it."""

    fit: str
    group: str = ""
    """The config that it is of: what may be at most holds for all fits of it together. Empty: it is the only one."""
    rules: PoolRules
    wanted: int | None = None
    """What a person wants, in place of the rules."""
    at_work: int = 0
    spares: int = 0
    """Those that are starting or ready."""
    waiting: int = 0
    """Tasks that have waited for an agent for a while."""
    coming: int = 0
    """Tasks that will be ready once something that is nearly done is done."""
    quiet_since: datetime | None = None
    """Since when there are more spares than are asked for; None while there are not."""


def asked_for(stock: Stock) -> int:
    """Return how many spares there should be of *stock*, if the host can carry them."""
    if stock.wanted is not None:
        return max(stock.wanted - stock.at_work, 0)
    rules = stock.rules
    ceiling = None if rules.most is None else max(rules.most - stock.at_work, 0)
    floor = max(rules.warm, rules.least - stock.at_work, 0)
    if ceiling is None:
        return floor
    return min(max(floor, stock.waiting + stock.coming), ceiling)


def plan(stocks: Sequence[Stock], carry: int | None, now: datetime) -> Mapping[str, int]:
    """Return how many spares there shall be, by fit; *carry* says how many more the host can carry (None: any number).

    Starting none is never an answer to want of memory for those that are there: they stay. What is more than is asked for
    stays as long as its rules say; what a person wants holds at once.
    """
    planned: dict[str, int] = {}
    room: dict[str, int] = {}
    # What persons want first, then what there is most of; what nothing asks for has what is left.
    for stock in sorted(stocks, key=lambda stock: (stock.wanted is None, not asked_for(stock), -stock.spares, stock.fit)):
        group = stock.group or stock.fit
        most = stock.rules.most if stock.wanted is None else stock.wanted
        if most is not None:
            room.setdefault(group, max(most - stock.at_work, 0))
        left = room.get(group)
        asked = asked_for(stock) if left is None else min(asked_for(stock), left)
        if asked > stock.spares:
            more = asked - stock.spares if carry is None else min(asked - stock.spares, max(carry, 0))
            carry = None if carry is None else carry - more
            planned[stock.fit] = stock.spares + more
        elif stock.wanted is not None:
            planned[stock.fit] = asked
        else:
            lasting = stock.quiet_since is not None and now - stock.quiet_since >= stock.rules.idle
            staying = asked if lasting else stock.spares
            planned[stock.fit] = staying if left is None else min(staying, left)
        if left is not None:
            room[group] = left - planned[stock.fit]
    return planned
