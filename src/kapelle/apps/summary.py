"""How the work went: of one run, or of all within a time; counted from the event log and the ledger."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any

from kapelle.apps.usage import unpaid, usage
from kapelle.core.attempt import COUNTS
from kapelle.core.budget import Grouping, Spend
from kapelle.core.events import MOVED, AttemptEnded, Entry, TaskMoved, TaskSubmitted
from kapelle.core.frozen import frozen
from kapelle.core.ids import RunId, TaskId
from kapelle.core.liveness import TOLD_ELSEWHERE
from kapelle.core.liveness_events import (
    AgentGivenUp,
    AgentInterrupted,
    AgentNoted,
    AgentNudged,
    AgentProbed,
    AgentRestarted,
    AlertRaised,
)
from kapelle.core.run import Run
from kapelle.core.store import View
from kapelle.core.task import TERMINAL, Task, TaskState

STAGES = (TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING, TaskState.VALIDATING, TaskState.MERGING)
"""Where a task's time goes, in order."""
STAGE_WORDS = {
    TaskState.PENDING: "waiting",
    TaskState.ASSIGNED: "starting",
    TaskState.RUNNING: "agent at work",
    TaskState.VALIDATING: "checks",
    TaskState.MERGING: "merge queue",
}
"""What people call it."""
HELPED = {
    AgentNoted: "noted",
    AgentProbed: "probed",
    AgentNudged: "nudged",
    AgentInterrupted: "interrupted",
    AgentRestarted: "restarted",
    AgentGivenUp: "given up",
}
MOST_RUNS = 1000
LATE = 0.9
"""The share of tasks that take less than what is called late."""


@frozen
class Day:
    """What happened on one day (UTC)."""

    day: date
    completed: int = 0
    failed: int = 0
    other: int = 0
    """Cancelled, rejected or skipped."""
    cost_usd: float = 0.0
    typical: timedelta | None = None
    """How long a task took that was completed, from its first start: half of them less."""


@frozen
class Summary:
    """How the work went."""

    title: str
    since: datetime
    until: datetime
    runs: int
    ended: Mapping[TaskState, int]
    """Tasks that have ended, by how."""
    open: int
    """Tasks that have not ended."""
    hours: float
    """In which something was at work."""
    typical: timedelta | None
    late: timedelta | None
    """How long a task takes from its first start until it is completed: half of them less, and nine of ten."""
    stages: Mapping[TaskState, timedelta]
    """Where the time of all tasks went."""
    tries: int
    failed_tries: Mapping[str, int]
    """Attempts that counted as failed, by how they ended."""
    gate_returns: int
    merge_returns: int
    helped: Mapping[str, int]
    """What was done about agents that looked stuck, and how often."""
    alerts: int
    spend: Spend
    days: tuple[Day, ...]
    unpaid: str = ""
    """Which of the money was not paid, in words."""
    more: bool = False
    """Whether there were more runs than are counted."""

    @property
    def done(self) -> int:
        """How many tasks have ended."""
        return sum(self.ended.values())

    @property
    def success(self) -> float | None:
        """The share that was completed, of those that were completed or failed."""
        completed, failed = self.ended.get(TaskState.COMPLETED, 0), self.ended.get(TaskState.FAILED, 0)
        return completed / (completed + failed) if completed + failed else None

    @property
    def per_hour(self) -> float | None:
        """Completed tasks for each hour in which something was at work."""
        return self.ended.get(TaskState.COMPLETED, 0) / self.hours if self.hours > 0 else None


@dataclass(kw_only=True, slots=True)
class _Count:
    since: datetime
    until: datetime
    ended: Counter[TaskState] = field(default_factory=Counter[TaskState])
    stages: defaultdict[TaskState, timedelta] = field(default_factory=lambda: defaultdict(timedelta))
    tries: int = 0
    failed_tries: Counter[str] = field(default_factory=Counter[str])
    helped: Counter[str] = field(default_factory=Counter[str])
    alerts: int = 0
    gate_returns: int = 0
    merge_returns: int = 0
    by_day: defaultdict[date, Counter[TaskState]] = field(default_factory=lambda: defaultdict(Counter[TaskState]))
    took: defaultdict[date, list[timedelta]] = field(default_factory=lambda: defaultdict(list[timedelta]))
    busy: list[tuple[datetime, datetime]] = field(default_factory=list[tuple[datetime, datetime]])

    def within(self, moment: datetime) -> bool:
        """Say whether *moment* counts."""
        return self.since <= moment < self.until

    def spent(self, state: TaskState, began: datetime, ended: datetime) -> None:
        """Count the time of one task in *state*, as far as it is within."""
        began, ended = max(began, self.since), min(ended, self.until)
        if ended > began and state in STAGES:
            self.stages[state] += ended - began
            if state is not TaskState.PENDING:
                self.busy.append((began, ended))


def summary(
    view: View, now: datetime, *, run_id: RunId | None = None, since: datetime | None = None, until: datetime | None = None
) -> Summary:
    """Return how one run went, or everything from *since* to *until*."""
    overviews = view.runs.overviews([run_id] if run_id is not None else None, limit=MOST_RUNS)
    runs = [overview.run for overview in overviews]
    first = min((run.submitted_at for run in runs), default=now)
    # What happens at this very moment counts.
    last = now + timedelta(microseconds=1)
    count = _Count(since=since or first, until=min(until or last, last))
    runs = [run for run in runs if run.submitted_at < count.until and (run.ended_at or now) >= count.since]
    unfinished = 0
    for run in runs:
        tasks = {task.task_id: task for task in view.tasks.of_run(run.run_id)}
        unfinished += sum(task.state not in TERMINAL for task in tasks.values())
        _events(count, tasks, _all_events(view, run.run_id), now)
        _returns(count, view, tasks.values())
    spent = view.ledger.used(Grouping.DAY, since=count.since, until=count.until, run_id=run_id)
    costs: defaultdict[date, float] = defaultdict(float)
    for used in spent:
        costs[date.fromisoformat(used.group)] += used.spend.cost_usd
    took = sorted(each for each_day in count.took.values() for each in each_day)
    return Summary(
        title=_title(runs, run_id),
        since=count.since,
        until=count.until,
        runs=len(runs),
        ended=dict(count.ended),
        open=unfinished,
        hours=_together(count.busy).total_seconds() / 3600,
        typical=_median(took),
        late=took[min(int(len(took) * LATE), len(took) - 1)] if took else None,
        stages={state: count.stages[state] for state in STAGES},
        tries=count.tries,
        failed_tries=dict(count.failed_tries.most_common()),
        gate_returns=count.gate_returns,
        merge_returns=count.merge_returns,
        helped=dict(count.helped),
        alerts=count.alerts,
        spend=sum((used.spend for used in spent), Spend()),
        unpaid=unpaid(usage(view, Grouping.ACCOUNT, since=count.since, until=count.until, run_id=run_id)),
        days=tuple(_days(count, costs)),
        more=run_id is None and len(overviews) == MOST_RUNS,
    )


def _title(runs: Sequence[Run], run_id: RunId | None) -> str:
    return f"{runs[0].spec.name} ({run_id})" if run_id is not None and runs else "all runs"


def _all_events(view: View, run_id: RunId) -> Iterator[Entry]:
    after = 0
    while entries := view.events(after, run_id=run_id, limit=5000):
        yield from entries
        after = entries[-1].seq


def _events(count: _Count, tasks: Mapping[TaskId, Task], entries: Iterator[Entry], now: datetime) -> None:
    """Count what the events of one run tell."""
    states: dict[TaskId, tuple[TaskState, datetime]] = {}
    started: dict[TaskId, datetime] = {}
    for entry in entries:
        event, at = entry.event, entry.at
        task_id = event.task_id
        if isinstance(event, TaskSubmitted) and task_id is not None:
            states[task_id] = (TaskState.PENDING, at)
        elif isinstance(event, TaskMoved) and task_id is not None:
            before, since = states.get(task_id, (event.before, at))
            count.spent(before, since, at)
            state = _state_after(event)
            states[task_id] = (state, at)
            if state is TaskState.ASSIGNED:
                started.setdefault(task_id, at)
            if state in TERMINAL and count.within(at):
                _ended(count, state, at, started.get(task_id))
        elif count.within(at):
            _told(count, event)
    for task_id, (state, since) in states.items():
        if task_id in tasks and state not in TERMINAL:
            count.spent(state, since, now)


def _state_after(event: TaskMoved) -> TaskState:
    return next(state for state, kind in MOVED.items() if kind is type(event))


def _ended(count: _Count, state: TaskState, at: datetime, began: datetime | None) -> None:
    day = at.astimezone(UTC).date()
    count.ended[state] += 1
    count.by_day[day][state] += 1
    if state is TaskState.COMPLETED and began is not None:
        count.took[day].append(at - began)


def _told(count: _Count, event: object) -> None:
    if isinstance(event, AttemptEnded):
        count.tries += 1
        if event.outcome in {outcome.value for outcome in COUNTS}:
            count.failed_tries[event.outcome] += 1
    elif isinstance(event, AlertRaised):
        count.alerts += 1
    elif isinstance(event, AgentNoted) and event.condition in TOLD_ELSEWHERE:
        # It waited for somebody, or stood still for a person: that is not stuck.
        return
    elif type(event) in HELPED:
        count.helped[HELPED[type(event)]] += 1  # pyright: ignore[reportArgumentType]  # it is one of them


def _median(took: Sequence[timedelta]) -> timedelta | None:
    return timedelta(seconds=median(each.total_seconds() for each in took)) if took else None


def _returns(count: _Count, view: View, tasks: Any) -> None:
    for task in tasks:
        if task.started_at is None:
            continue
        for attempt in view.attempts.of_task(task.task_id):
            if count.within(attempt.started_at):
                count.gate_returns += attempt.gate_rounds
                count.merge_returns += attempt.merge_returns


def _together(spans: Sequence[tuple[datetime, datetime]]) -> timedelta:
    """Return the time that is covered by any of *spans*."""
    total, reached = timedelta(0), datetime.min.replace(tzinfo=UTC)
    for began, ended in sorted(spans):
        total += max(ended - max(began, reached), timedelta(0))
        reached = max(reached, ended)
    return total


def _days(count: _Count, costs: Mapping[date, float]) -> Iterator[Day]:
    some = sorted({*count.by_day, *costs})
    if not some:
        return
    day = some[0]
    while day <= some[-1]:
        ended = count.by_day.get(day, Counter[TaskState]())
        took = count.took.get(day, [])
        completed, failed = ended[TaskState.COMPLETED], ended[TaskState.FAILED]
        yield Day(
            day=day,
            completed=completed,
            failed=failed,
            other=sum(ended.values()) - completed - failed,
            cost_usd=costs.get(day, 0.0),
            typical=_median(took),
        )
        day += timedelta(days=1)


def summary_json(found: Summary) -> dict[str, Any]:
    """Return a summary as JSON: times in ISO 8601, durations in seconds."""
    tokens = found.spend.usage.total
    return {
        "title": found.title,
        "since": found.since.isoformat(),
        "until": found.until.isoformat(),
        "runs": found.runs,
        "tasks": {state.value: number for state, number in found.ended.items()},
        "open": found.open,
        "success": _rounded(found.success),
        "hours_at_work": round(found.hours, 4),
        "completed_per_hour": _rounded(found.per_hour),
        "task_s": {"median": _seconds(found.typical), "p90": _seconds(found.late)},
        "stages_s": {state.value: _seconds(spent) for state, spent in found.stages.items()},
        "attempts": found.tries,
        "failed_attempts": dict(found.failed_tries),
        "gate_returns": found.gate_returns,
        "merge_returns": found.merge_returns,
        "stuck_agents": dict(found.helped),
        "alerts": found.alerts,
        "cost_usd": round(found.spend.cost_usd, 6),
        "unpaid": found.unpaid or None,
        "tokens": tokens,
        "model_calls": found.spend.calls,
        "days": [
            {
                "day": day.day.isoformat(),
                "completed": day.completed,
                "failed": day.failed,
                "other": day.other,
                "cost_usd": round(day.cost_usd, 6),
                "median_task_s": _seconds(day.typical),
            }
            for day in found.days
        ],
        "more_runs": found.more,
    }


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else round(duration.total_seconds(), 3)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)
