"""Runs: one execution of a workflow, with everything it was submitted with, and the table of its states."""

from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum

from kapelle.core.agent import AgentConfig
from kapelle.core.budget import Allowance, StandingBudget
from kapelle.core.errors import IllegalTransition
from kapelle.core.frozen import frozen, replace
from kapelle.core.gate import Gate
from kapelle.core.gateway import Upstream
from kapelle.core.hours import WorkingHours
from kapelle.core.ids import RunId
from kapelle.core.isolation import Isolation
from kapelle.core.merge import DeliveryMode, MergeRules
from kapelle.core.placing import Strategy
from kapelle.core.spent import OnSpent
from kapelle.core.standings import AlertLimits
from kapelle.core.task import TaskSpec


@frozen
class WorkspaceRules:
    """How each workspace of a repository is set up."""

    copy: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    ports: int = 0
    """How many TCP ports each workspace gets for itself, named by PORT, PORT_1, PORT_2, ..."""
    sandbox: str = "process"
    """Which sandbox set-up commands and checks run in."""
    isolation: Isolation = Isolation()
    """What is asked of it."""


@frozen
class Limits:
    """How much at once, and how much at all."""

    agents: int | None = None
    """Agents of this run that may be live at once."""
    project: int | None = None
    """Agents of all runs of the project that may be live at once."""
    account: int | None = None
    """Agents of the run's account that may be live at once, whatever project they work for."""
    models: tuple[tuple[str, int], ...] = ()
    """Agents of one model, with the run's account, that may be live at once."""
    budget: Allowance = Allowance()
    """What the whole run may spend."""
    standing: tuple[StandingBudget, ...] = ()
    """What it may spend together with others."""
    on_spent: OnSpent = OnSpent.ASK
    """What becomes of its tasks when one of these budgets is spent, or one of their own."""
    answer_within: timedelta | None = None
    """How long a person has to answer then, before it counts as stopped; None: for ever."""
    merge_returns: int = 3
    """How often the merge queue sends a change back before the task fails."""


@frozen
class RunSpec:
    """A run as it was submitted: configuration is read once and kept, never read from an agent's tree."""

    name: str
    project: str = ""
    repository: str | None = None
    """The root of the operator's checkout; None for tasks without git."""
    target: str | None = None
    base: str | None = None
    """The commit of the target at submission."""
    inputs: str = "{}"
    """JSON text."""
    tasks: tuple[TaskSpec, ...]
    phases: tuple[str, ...] = ()
    configs: tuple[AgentConfig, ...] = ()
    gates: tuple[Gate, ...] = ()
    workspace: WorkspaceRules = field(default_factory=WorkspaceRules)
    limits: Limits = field(default_factory=Limits)
    strategy: Strategy = Strategy.LEAST_LOADED
    """Which of several agent configs that fit a task is taken."""
    delivery: DeliveryMode = DeliveryMode.EACH
    merge: MergeRules = field(default_factory=MergeRules)
    upstream: Upstream = field(default_factory=Upstream)
    hours: WorkingHours | None = None
    """When its agents may work; None: always."""
    alerts: AlertLimits = AlertLimits()
    """Bounds that raise an alert when they are passed by."""

    def config(self, name: str) -> AgentConfig:
        """Return the agent config called *name*, which exists: the workflow was checked."""
        return next(config for config in self.configs if config.name == name)

    def gate(self, name: str | None) -> Gate | None:
        """Return the gate called *name*, or None when a task names none."""
        return next((gate for gate in self.gates if gate.name == name), None)


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    DELIVERING = "delivering"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


RUN_TERMINAL = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})
RUN_TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.RUNNING: frozenset({RunState.DELIVERING, *RUN_TERMINAL}),
    RunState.DELIVERING: frozenset(RUN_TERMINAL),
    **{state: frozenset() for state in RUN_TERMINAL},
}


@frozen
class Run:
    """One execution of a workflow."""

    run_id: RunId
    spec: RunSpec
    state: RunState = RunState.RUNNING
    paused: bool = False
    unfinished: int = 0
    """How many of its tasks are not terminal yet."""
    principal: str = ""
    submitted_at: datetime
    ended_at: datetime | None = None

    @property
    def line(self) -> str:
        """The line of the target's queue that its work is merged onto; see ``core.merge.Integration``."""
        return "" if self.spec.delivery is DeliveryMode.EACH else self.run_id


def move(run: Run, to: RunState, now: datetime) -> Run:
    """Return *run* in the state *to*.

    Raises:
        IllegalTransition: the table has no such transition.
    """
    if to not in RUN_TRANSITIONS[run.state]:
        raise IllegalTransition("run", run.run_id, run.state, to)
    return replace(run, state=to, ended_at=now if to in RUN_TERMINAL else None)
