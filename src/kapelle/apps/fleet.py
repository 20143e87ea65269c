"""The fleet at one moment: hosts, agents, queue, spending, questions. Made from the store and a measure of the host.

What adds up model calls takes longer the more of them there are (``sums``); everything else takes as long as what is live
(``fleet``). So whoever looks again and again does the one less often than the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta

from kapelle.apps.agents import AgentReport, agents, spent_by_agents
from kapelle.apps.explaining import queue
from kapelle.apps.health import AgentHealth, SystemHealth, agents_health
from kapelle.apps.inbox import Item, inbox
from kapelle.apps.proving import Queued, merging
from kapelle.apps.usage import Line, paid, usage
from kapelle.core.account import Account, account_of
from kapelle.core.budget import Budget, Grouping, Level, Period, Spend, began, levels
from kapelle.core.frozen import frozen
from kapelle.core.ids import AgentId, RunId, TaskId
from kapelle.core.leading import Lead
from kapelle.core.pool import Spare
from kapelle.core.run import Run
from kapelle.core.spent import raised
from kapelle.core.standings import Alert
from kapelle.core.store import Overview, View
from kapelle.core.task import Task, TaskSpec, TaskState, Wait
from kapelle.engine.demands import Around
from kapelle.engine.holds import brakes_of, its_purse
from kapelle.engine.purses import Purse, run_key, sum_up, task_key

LOOKED = 60
"""Due tasks that are put in order."""
LATER = 20
"""Tasks of a run that are told for each thing that they wait for."""
HELD_BACK = (Wait.LIMIT, Wait.CREDENTIALS, Wait.BUDGET, Wait.SCHEDULE, Wait.PAUSED, Wait.RETRY)
"""What a task may wait for that is neither room, nor a person, nor another task."""


@frozen
class RunStand:
    """An open run, and what it has spent."""

    overview: Overview
    paid: str
    """With what; see ``usage.Line``."""


@frozen
class Sums:
    """What takes longer the more there is."""

    runs: tuple[RunStand, ...] = ()
    spent: Mapping[AgentId, Spend] = field(default_factory=dict[AgentId, Spend])
    today: tuple[Line, ...] = ()
    """What was spent since midnight (UTC), by account."""
    levels: tuple[Level, ...] = ()
    """How full the budgets of open runs are, the fullest first."""
    later: tuple[Task, ...] = ()
    """Tasks that wait for something else than room, a person or another task."""


@frozen
class AgentStand:
    """A live agent, and how it stands."""

    report: AgentReport
    health: AgentHealth | None
    """None: nobody has looked yet, or nobody does."""
    alive: bool
    """Whether its process is there."""


@frozen
class Waiting:
    """A task that waits for an agent, or for its checks."""

    task: Task
    run: Run
    why: str


@frozen
class Fleet:
    """Everything at one moment."""

    at: datetime
    lead: Lead | None
    system: SystemHealth
    host: str
    slots: int
    agents: tuple[AgentStand, ...] = ()
    spares: tuple[Spare, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    """Those that need their agent back, then the others in the order in which they would be placed; last, what could not run
    now if there were room."""
    checking: tuple[Waiting, ...] = ()
    """Tasks whose checks run, or are about to."""
    merging: tuple[Queued, ...] = ()
    items: tuple[Item, ...] = ()
    """The inbox."""
    accounts: tuple[Account, ...] = ()
    """Those of open runs that are not open."""
    alerts: tuple[Alert, ...] = ()
    sums: Sums = Sums()

    @property
    def halted(self) -> Item | None:
        """The halt that holds, if one does."""
        return next((item for item in self.items if item.kind == "halt"), None)

    @property
    def questions(self) -> tuple[Item, ...]:
        """What waits for a person, other than the halt."""
        return tuple(item for item in self.items if item.kind != "halt")


def fleet(view: View, around: Around, system: SystemHealth, lead: Lead | None, sums: Sums, now: datetime) -> Fleet:
    """Return how everything stands; whether processes are there is for the caller to say."""
    led = lead is not None
    health = {each.agent_id: each for each in agents_health(view)} if led else {}
    open_runs = view.runs.open()
    accounts = {account_of(run.spec.upstream).account_id for run in open_runs}
    return Fleet(
        at=now,
        lead=lead,
        system=system,
        host=around.host,
        slots=around.slots,
        agents=tuple(
            AgentStand(report=report, health=health.get(report.agent.agent_id), alive=True)
            for report in agents(view, spent=sums.spent)
        ),
        spares=tuple(view.spares.all()),
        waiting=tuple(_waiting(view, around, sums, now)),
        checking=tuple(_with_runs(view, view.tasks.in_state(TaskState.VALIDATING, LOOKED))),
        merging=tuple(merging(view)),
        items=tuple(inbox(view)),
        accounts=tuple(account for account in view.accounts.not_open() if account.account_id in accounts),
        alerts=tuple(view.standings.alerts()) if led else (),
        sums=sums,
    )


def _waiting(view: View, around: Around, sums: Sums, now: datetime) -> list[Waiting]:
    back = (view.tasks.get(attempt.task_id) for attempt in view.attempts.without_agent())
    returning = [task for task in back if task is not None and task.waits_for is not Wait.APPROVAL]
    first = [*returning, *queue(view, around, now, LOOKED)]
    known = {task.task_id for task in first}
    # They were read a while ago.
    later = (view.tasks.get(task.task_id) for task in sums.later if task.task_id not in known)
    return _with_runs(view, [*first, *(task for task in later if task is not None and task.waits_for in HELD_BACK)])


def _with_runs(view: View, tasks: Iterable[Task]) -> list[Waiting]:
    runs = ((task, view.runs.get(task.run_id)) for task in tasks)
    return [Waiting(task=task, run=run, why=_why(task)) for task, run in runs if run is not None]


def _why(task: Task) -> str:
    """Say in few words what *task* waits for; empty when it waits for its turn alone."""
    if task.waits_for is None:
        return ""
    detail = task.detail.splitlines()[0] if task.detail else ""
    return detail or f"waits for {task.waits_for.value}"


def sums(view: View, now: datetime) -> Sums:
    """Add up what open runs, their agents and this day have spent, and how full budgets are."""
    runs = view.runs.open()
    overviews = view.runs.overviews([run.run_id for run in runs])
    return Sums(
        runs=tuple(
            RunStand(overview=each, paid=paid(str(account_of(each.run.spec.upstream).account_id))) for each in overviews
        ),
        spent=spent_by_agents(view, view.agents.live()),
        today=tuple(usage(view, Grouping.ACCOUNT, since=began(Period.DAY, now))),
        levels=tuple(sorted(_levels(view, overviews, now), key=lambda level: -share(level))),
        later=tuple(task for run in runs for wait in HELD_BACK for task in view.tasks.waiting(run.run_id, wait, LATER)),
    )


def share(level: Level) -> float:
    """Return how much of a budget is spent: 1 is all of it."""
    return level.spent / level.limit if level.limit > 0 else 1.0


def _levels(view: View, overviews: Sequence[Overview], now: datetime) -> list[Level]:
    raises = brakes_of(view, now).raises
    budgets: dict[str, Budget] = {}
    spent: dict[str, Spend] = {}
    for overview in overviews:
        run = overview.run
        purses = _purses(view, run, now)
        for budget in (budget for purse in purses for budget in purse.budgets(now)):
            budgets.setdefault(budget.key, raised(budget, raises))
        if run.spec.limits.budget.bounded:
            spent[run_key(run.run_id)] = overview.spend + Spend(time=_worked(view, run, now))
        if any(purse.task_allowance.bounded for purse in purses):
            spent |= {task_key(task_id): each for task_id, each in _by_task(view, run, now).items()}
        for key in (standing := sum_up(view, purses[0], now)):
            spent[key] = standing[key]
    return list(levels(budgets.values(), lambda key: spent.get(key, Spend())))


def _purses(view: View, run: Run, now: datetime) -> list[Purse]:
    """Return under which budgets the live agents of *run* spend, and first those of the run as a whole."""
    whole = Task(task_id=TaskId(""), run_id=run.run_id, spec=TaskSpec(name=""), rank=0.0, submitted_at=run.submitted_at)
    live = (view.tasks.get(agent.task_id) for agent in view.agents.live() if agent.run_id == run.run_id)
    return [its_purse(run, task, now) for task in (whole, *(task for task in live if task is not None))]


def _times(view: View, run_id: RunId, now: datetime) -> dict[TaskId, timedelta]:
    """Return for how long agents were there for the tasks of a run, live ones included."""
    found = view.agents.worked(run_id)
    for agent in view.agents.live():
        if agent.run_id == run_id:
            found[agent.task_id] = found.get(agent.task_id, timedelta(0)) + (now - agent.created_at)
    return found


def _worked(view: View, run: Run, now: datetime) -> timedelta:
    return sum(_times(view, run.run_id, now).values(), timedelta(0))


def _by_task(view: View, run: Run, now: datetime) -> dict[TaskId, Spend]:
    calls, times = view.ledger.by_task(run.run_id), _times(view, run.run_id, now)
    return {task_id: calls.get(task_id, Spend()) + Spend(time=times.get(task_id, timedelta(0))) for task_id in {*calls, *times}}
