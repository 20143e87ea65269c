"""Why a task waits, or why it went where it went: every rule that holds it up, with numbers, and the decision that was kept.

What dispatch would decide is computed by the same functions that decide it, on the same state; nothing is changed.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from kapelle.apps import compose
from kapelle.apps.settings import Configuration
from kapelle.core.dispatch import Demand, Room, hindrances, place
from kapelle.core.durations import format_duration
from kapelle.core.frozen import frozen, replace
from kapelle.core.halt import told as halt_told
from kapelle.core.ids import TaskId
from kapelle.core.placing import Choice, Considered, Group, HostRoom, Refusal, Tally
from kapelle.core.plain_text import counted
from kapelle.core.question import ASKS
from kapelle.core.run import Run
from kapelle.core.spent import told as spent_told
from kapelle.core.store import View
from kapelle.core.task import TERMINAL, Task, TaskState, Wait
from kapelle.engine.demands import Around, Reckoning
from kapelle.engine.due import FIRST, RUNS
from kapelle.engine.holds import brakes_of
from kapelle.engine.missing import MissingDriver

LOOKED = 300
"""Due tasks that are put in order to see who goes first; the same number as dispatch looks at first."""
TOLD = 5
"""How many of those who go before are told by name."""
NO_END = 1_000_000
"""More slots than anybody has."""


@frozen
class Reason:
    """A rule that holds a task up."""

    rule: str
    detail: str
    changes: str = ""
    """When or by what that changes; empty when nobody knows."""


@frozen
class Ahead:
    """A task that goes before."""

    task_id: TaskId
    name: str
    run_id: str
    why: str


@frozen
class Turn:
    """How many tasks go before, if all limits were as they are."""

    count: int
    more: bool = False
    """Whether there are more than were looked at."""
    first: tuple[Ahead, ...] = ()


@frozen
class Decision:
    """What was decided when an attempt of the task began."""

    number: int
    config: str
    host: str
    at: datetime
    strategy: str
    considered: tuple[Considered, ...]


@frozen
class Explanation:
    """Everything there is to say about a task's place."""

    task: Task
    run: Run
    reasons: tuple[Reason, ...] = ()
    turn: Turn | None = None
    """None for a task that does not wait for an agent."""
    decisions: tuple[Decision, ...] = ()


async def around_of(configuration: Configuration) -> Around:
    """Return what there is beside the store: this machine, measured now, and what was set for it."""
    host, drivers = compose.host(), compose.drivers()
    return Around(
        host=host.name,
        slots=configuration.settings.slots,
        driver=lambda program: drivers.get(program) or MissingDriver(program),
        measure=await host.measure(),
        keep_free=configuration.settings.keep_free,
    )


def explain(view: View, task: Task, run: Run, around: Around, now: datetime, *, led: bool) -> Explanation:
    """Return why *task* is where it is; *led* says whether anybody leads."""
    reasons = list(_held_up(view, task, run, now)) if task.state not in TERMINAL else []
    turn = None
    wanted = _wanted(view, task) if not reasons else None
    if wanted is not None:
        reckoning = _reckoning(view, around, now)
        demand = reckoning.demand(task, run, wanted[0], returning=wanted[1])
        room = reckoning.room()
        reasons += [_told(view, refusal) for refusal in hindrances(demand, Tally(room))]
        turn = _turn(view, reckoning, task, demand, room, now)
    waits = turn is not None or any(reason.rule not in {"approval", "question"} for reason in reasons)
    if waits and not led:
        reasons.append(Reason(rule="leader", detail="nobody leads, so nothing is started", changes="kapelle resume"))
    return Explanation(task=task, run=run, reasons=tuple(reasons), turn=turn, decisions=tuple(_decisions(view, task, run)))


def _reckoning(view: View, around: Around, now: datetime) -> Reckoning:
    return Reckoning(view, around, now, {account.account_id: account for account in view.accounts.not_open()})


def _wanted(view: View, task: Task) -> tuple[tuple[str, ...], bool] | None:
    """Return of which agent configs *task* waits for an agent, and whether it comes back; None when it waits for none."""
    if task.state is TaskState.PENDING:
        return task.spec.choices, False
    if task.state is not TaskState.RUNNING or any(agent.task_id == task.task_id for agent in view.agents.live()):
        return None
    attempt = next((each for each in view.attempts.of_task(task.task_id) if each.ended_at is None), None)
    return None if attempt is None else ((attempt.config,), True)


UNHALT = "kapelle unhalt"
# --- Before it is due -------------------------------------------------------------------------------------------------


def _held_up(view: View, task: Task, run: Run, now: datetime) -> Iterator[Reason]:
    """Yield what keeps *task* from being due."""
    halt = view.brakes.halt()
    if halt is not None and task.waits_for is not Wait.PAUSED and task.state in {TaskState.PENDING, TaskState.RUNNING}:
        # Whatever else it waits for.
        yield Reason(rule="halt", detail=halt_told(halt).removesuffix(f": {UNHALT}"), changes=UNHALT)
    if run.paused and task.state is TaskState.PENDING:
        yield Reason(rule="paused", detail=f"run {run.run_id} is paused", changes=f"kapelle resume {run.run_id}")
    if task.unmet:
        for need in view.tasks.needs(task.task_id):
            if need.state not in TERMINAL:
                waits = f", which waits for {need.waits_for.value}" if need.waits_for is not None else ""
                phase = f" (phase {need.spec.phase})" if need.spec.phase and need.spec.phase != task.spec.phase else ""
                detail = f"it needs {need.name}{phase}: {need.state.value}{waits}"
                yield Reason(rule="needs", detail=detail, changes=f"when {need.name} has ended; kapelle explain {need.task_id}")
    elif task.waits_for is Wait.APPROVAL and task.detail.startswith(ASKS):
        yield Reason(rule="question", detail=task.detail, changes="kapelle inbox")
    elif task.waits_for is Wait.APPROVAL:
        asks = task.detail or "it waits for your approval"
        yield Reason(rule="approval", detail=asks, changes=f"kapelle approve {task.task_id}")
    if task.waits_for in {Wait.LIMIT, Wait.CREDENTIALS, Wait.BUDGET, Wait.SCHEDULE, Wait.PAUSED}:
        until = task.due_at if task.due_at is not None and task.due_at > now else None
        said, dash, command = task.detail.rpartition(": kapelle ")
        by_hand = f"kapelle {command}" if dash else ""
        changes = "; or ".join(each for each in (by_hand, _at(until, now)) if each)
        yield Reason(rule=str(task.waits_for), detail=said or task.detail, changes=changes)
        yield from _also(view, task, run, now)
    elif task.due_at is not None and task.due_at > now:
        why = f"its attempt {task.attempts} failed: {task.detail}" if task.detail else "its time has not come"
        yield Reason(rule="retry", detail=why, changes=_at(task.due_at, now))


def _also(view: View, task: Task, run: Run, now: datetime) -> Iterator[Reason]:
    """Yield what else would keep *task* from its agent, if what it waits for were over: other spent budgets, the hours."""
    brakes = brakes_of(view, now)
    if task.waits_for is Wait.BUDGET:
        for row in brakes.all_spent_by(run, task):
            said, dash, command = spent_told(row).rpartition(": kapelle ")
            if f"budget of {row.name} " not in task.detail:
                yield Reason(rule="budget", detail=said or command, changes=f"kapelle {command}" if dash else "")
    hold = None if task.waits_for is Wait.SCHEDULE else brakes.of_hours(run)
    if hold is not None:
        yield Reason(rule=str(hold.wait), detail=hold.detail, changes=_at(hold.until, now))


def _at(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else f"at {moment.astimezone():%H:%M:%S}, in {format_duration(moment - now)}"


# --- When it is due ---------------------------------------------------------------------------------------------------

_ENDS = "when one of these agents ends: {}"


def _told(view: View, refusal: Refusal) -> Reason:
    """Return *refusal* with what changes it."""
    live = [task.name for agent in view.agents.live() for task in [view.tasks.get(agent.task_id)] if task is not None]
    named = ", ".join(live[:TOLD]) + (f" and {len(live) - TOLD} more" if len(live) > TOLD else "")
    match refusal.rule:
        case "slots":
            changes = _ENDS.format(named) if live else "with more slots: limits.slots in project.yml, or KAPELLE_SLOTS"
        case "memory":
            changes = "when an agent ends, or other programs give memory back; measured every 5s"
        case "starts":
            changes = "by itself"
        case _:
            changes = "when one of them ends"
    return Reason(rule=refusal.rule, detail=refusal.detail, changes=changes)


def _turn(view: View, reckoning: Reckoning, task: Task, mine: Demand, room: Room, now: datetime) -> Turn:
    """Return who goes before *mine*: in the order in which all would be placed, if there were room for all."""
    page, more = _page(view, now, LOOKED)
    tasks = {each.task_id: each for each in page}
    demands = [_free(demand) for each in page for demand in _demands(reckoning, each)]
    if mine.task_id not in tasks:
        demands.append(_free(mine))
    order = _order(demands, room)
    place_of_mine = order.index(mine.task_id)
    by_id = {demand.task_id: demand for demand in demands}
    told = order[:place_of_mine][:TOLD]
    first = tuple(
        Ahead(
            task_id=other.task_id, name=other.name, run_id=other.run_id, why=_why(other, by_id[other.task_id], task, mine, room)
        )
        for other in (tasks[task_id] for task_id in told)
    )
    return Turn(count=place_of_mine, more=more and mine.task_id not in tasks, first=first)


def _order(demands: Sequence[Demand], room: Room) -> list[TaskId]:
    """Return whose turn it is: without limits, and with no end of slots."""
    wide = replace(room, hosts=tuple(HostRoom(name=host.name, slots=NO_END, live=host.live) for host in room.hosts), starts={})
    return [placement.task_id for placement in place(demands, wide)[0]]


def queue(view: View, around: Around, now: datetime, limit: int) -> list[Task]:
    """Return the tasks that could run now, so many and the first of every run, in the order in which they would be placed."""
    reckoning = _reckoning(view, around, now)
    page, _ = _page(view, now, limit)
    tasks = {each.task_id: each for each in page}
    demands = [_free(demand) for each in page for demand in _demands(reckoning, each)]
    return [tasks[task_id] for task_id in _order(demands, reckoning.room())]


def _page(view: View, now: datetime, limit: int) -> tuple[list[Task], bool]:
    """Return the first due tasks by rank and, where there are more than *limit*, the first of every other run."""
    page = list(view.tasks.due(now, limit))
    more = len(page) == limit
    seen = {each.run_id for each in page}
    for run_id in view.tasks.runs_due(RUNS) if more else ():
        if run_id not in seen:
            page += view.tasks.due_of_run(run_id, now, FIRST)
    return page, more


def _demands(reckoning: Reckoning, task: Task) -> Iterator[Demand]:
    run = reckoning.run(task.run_id)
    if run is not None:
        yield reckoning.demand(task, run, task.spec.choices, returning=False)


def _free(demand: Demand) -> Demand:
    """Return *demand* without what limits it."""
    choices = tuple(Choice(config=choice.config, groups=choice.groups) for choice in demand.choices)
    return replace(demand, choices=choices, limits=(), slotless=False, at=None)


def _why(first: Task, other: Demand, task: Task, mine: Demand, room: Room) -> str:
    """Say in words why the task *first* goes before *task*."""

    def live(group: Group) -> int:
        return room.live_by.get(group, 0)

    if other.returning and not mine.returning:
        return "it only needs its agent back"
    if other.priority is not mine.priority:
        return f"priority {other.priority.value}, this one {mine.priority.value}"
    for group, its, what in ((other.its_project, mine.its_project, "project"), (other.its_run, mine.its_run, "run")):
        if group != its:
            has, have = live(group), live(its)
            if has < have:
                return f"its {what} has {counted(has, 'live agent')}, this one's {have}"
            return f"its {what} has the earlier turn: {_earlier(first, task)}"
    if other.rank > mine.rank:
        return "it touches no file that live agents write"
    return _earlier(first, task)


def _earlier(first: Task, task: Task) -> str:
    """Say in words why the rank of *first* is smaller."""
    earlier = task.submitted_at - first.submitted_at
    if earlier >= timedelta(seconds=1):
        return f"submitted {format_duration(earlier)} earlier"
    if first.path > task.path:
        longer, shorter = (format_duration(timedelta(seconds=each.path)) for each in (first, task))
        return f"critical path {longer}, this one's {shorter}"
    return "they are equal, and one must go first"


# --- What was decided -------------------------------------------------------------------------------------------------


def _decisions(view: View, task: Task, run: Run) -> Iterator[Decision]:
    from kapelle.core.events import AttemptStarted

    for entry in view.events_of_task(run.run_id, task.task_id, AttemptStarted.kind):
        event = entry.event
        if isinstance(event, AttemptStarted) and event.host:
            yield Decision(
                number=event.number,
                config=event.config,
                host=event.host,
                at=entry.at,
                strategy=run.spec.strategy.value,
                considered=event.considered,
            )


def facts(found: Explanation) -> list[tuple[str, str]]:
    """Return what decides about the task's place in the queue, each with its value in words."""
    spec = found.task.spec
    path = timedelta(seconds=found.task.path)
    told = [
        ("priority", spec.priority.value),
        ("submitted", f"{found.task.submitted_at.astimezone():%Y-%m-%d %H:%M:%S}"),
        ("critical path", format_duration(path)),
        ("may go to", ", ".join(spec.choices)),
    ]
    return [*told, ("requires", ", ".join(spec.requires))] if spec.requires else told


def explanation_json(found: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON."""
    task, turn = found.task, found.turn
    return {
        "id": task.task_id,
        "name": task.name,
        "run": found.run.run_id,
        "state": task.state.value,
        "waits_for": task.waits_for.value if task.waits_for else None,
        "priority": task.spec.priority.value,
        "critical_path_s": round(task.path, 3),
        "may_go_to": list(task.spec.choices),
        "requires": list(task.spec.requires),
        "reasons": [{"rule": each.rule, "detail": each.detail, "changes": each.changes or None} for each in found.reasons],
        "ahead": None
        if turn is None
        else {
            "count": turn.count,
            "more": turn.more,
            "first": [{"id": each.task_id, "name": each.name, "run": each.run_id, "why": each.why} for each in turn.first],
        },
        "placed": [_decision_json(each) for each in found.decisions],
    }


def _decision_json(decision: Decision) -> dict[str, Any]:
    return {
        "attempt": decision.number,
        "agent": decision.config,
        "host": decision.host,
        "at": decision.at.isoformat(),
        "strategy": decision.strategy,
        "considered": [
            {"agent": each.config, "host": each.host, "score": each.score, "refusal": each.refusal or None}
            for each in decision.considered
        ],
    }


def score_text(considered: Sequence[Considered], strategy: str) -> str:
    """Say in words what the scores of *strategy* mean."""
    meaning = {
        "least_loaded": "live agents of its limit (or of the slots), and slots taken of the host; the lowest is taken",
        "round_robin": "how often it was taken since the leader began; the lowest is taken",
        "best_fit": "capabilities that are not required, and slots left of the host; the lowest is taken",
    }[strategy]
    return f"{strategy}: {meaning}" if len(considered) > 1 else "it was the only one that may do it"
