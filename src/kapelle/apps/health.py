"""Health, as told: how each agent stands, how the machine does, and how the work goes."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kapelle.apps import compose
from kapelle.apps.settings import Configuration
from kapelle.core.agent import Agent
from kapelle.core.attempt import COUNTS, Outcome
from kapelle.core.durations import format_duration
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AgentId, AttemptId, RunId, TaskId
from kapelle.core.leading import Lead
from kapelle.core.liveness import IN_WORDS, Condition, Grade, Standing
from kapelle.core.ports import Measure
from kapelle.core.sizes import format_size
from kapelle.core.standings import Alert
from kapelle.core.store import View
from kapelle.core.task import TERMINAL, TaskState, Wait

DONE_FOR: dict[Grade, str] = {
    Grade.NONE: "",
    Grade.NOTE: "noted",
    Grade.PROBE: "probed",
    Grade.NUDGE: "told",
    Grade.INTERRUPT: "its turn was broken off",
    Grade.RESTART: "started anew",
    Grade.GIVE_UP: "given up",
}
"""What was done about an agent, in a word or two."""


@frozen
class AgentHealth:
    """How one agent stands."""

    agent_id: AgentId
    attempt_id: AttemptId
    run_id: RunId
    task_id: TaskId
    task: str
    condition: Condition
    since: datetime
    reasons: tuple[str, ...]
    grade: Grade
    doing: str
    worked_at: datetime

    def words(self, now: datetime) -> str:
        """Say what it does, since when, and what was done about it."""
        told = IN_WORDS[self.condition]
        if self.condition is Condition.WORKING:
            return f"{told}: {self.doing}" if self.doing else told
        done = f"; {DONE_FOR[self.grade]}" if self.grade.height > Grade.NOTE.height else ""
        why = f" ({self.reasons[0]})" if self.reasons else ""
        return f"{told} for {format_duration(max(now - self.since, timedelta(0)))}{why}{done}"


@frozen
class WorkHealth:
    """How the work of the open runs goes."""

    completed: int
    failed: int
    at_work: int
    waiting: int
    """Tasks that have not begun, for whatever reason."""
    queue_age: timedelta
    """How long the oldest task waits that could run."""
    tries: int
    failed_tries: int
    """Attempts, and how many of them counted as failed."""

    @property
    def success(self) -> float | None:
        """The share of tasks that were completed, of those that were completed or failed; None when there are none."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None


@frozen
class Health:
    """Everything about how it goes."""

    agents: tuple[AgentHealth, ...]
    alerts: tuple[Alert, ...]
    work: WorkHealth


def agents_health(view: View) -> tuple[AgentHealth, ...]:
    """Return how the live agents stand, and those that wait for something with none: by run and task."""
    rows = view.standings.all()
    live = {agent.attempt_id: agent for agent in view.agents.live()} if rows else dict[AttemptId, Agent]()
    # Who worked when it was last looked, and is gone (its budget is spent, everything is halted), does not work any more.
    there = [row for row in rows if row.condition is not Condition.WORKING or row.attempt_id in live]
    return tuple(_agent(view, _as_held(row, live.get(row.attempt_id))) for row in there)


def _as_held(row: Standing, agent: Agent | None) -> Standing:
    """Return *row* with whether a person holds its agent still as that is now, and not as it was at the last heartbeat."""
    if agent is None:
        return row
    if agent.frozen_at is not None:
        return replace(row, condition=Condition.FROZEN, since=agent.frozen_at, reasons=(), grade=Grade.NONE)
    if row.condition is Condition.FROZEN:
        return replace(row, condition=Condition.WORKING, reasons=(), doing="")
    return row


def _agent(view: View, row: Standing) -> AgentHealth:
    task = view.tasks.get(row.task_id)
    return AgentHealth(
        agent_id=row.agent_id,
        attempt_id=row.attempt_id,
        run_id=row.run_id,
        task_id=row.task_id,
        task=task.name if task is not None else row.task_id,
        condition=row.condition,
        since=row.since,
        reasons=row.reasons,
        grade=row.grade,
        doing=row.doing,
        worked_at=row.worked_at,
    )


def health(view: View, now: datetime, *, led: bool = True) -> Health:
    """Return how it goes. When it is not *led*, nobody looks: of agents and alerts nothing is known but what was."""
    runs = view.runs.open()
    tasks = sum((Counter(view.runs.counts(run.run_id)) for run in runs), Counter[tuple[TaskState, Wait | None]]())
    tries = sum((Counter(view.attempts.outcomes(run.run_id)) for run in runs), Counter[Outcome | None]())
    ready = [task for run in runs if not run.paused for task in view.tasks.due_of_run(run.run_id, now, 1)]
    since = [max(task.submitted_at, task.due_at or task.submitted_at) for task in ready]
    unended = {key: count for key, count in tasks.items() if key[0] not in TERMINAL}
    at_work = sum(count for (state, wait), count in unended.items() if state is not TaskState.PENDING and wait is None)
    return Health(
        agents=agents_health(view) if led else (),
        alerts=tuple(view.standings.alerts()) if led else (),
        work=WorkHealth(
            completed=_ended(tasks, TaskState.COMPLETED),
            failed=_ended(tasks, TaskState.FAILED),
            at_work=at_work,
            waiting=sum(unended.values()) - at_work,
            queue_age=max((now - moment for moment in since), default=timedelta(0)),
            tries=tries.total(),
            failed_tries=sum(count for outcome, count in tries.items() if outcome in COUNTS),
        ),
    )


def _ended(tasks: Counter[tuple[TaskState, Wait | None]], how: TaskState) -> int:
    return sum(count for (state, _), count in tasks.items() if state is how)


@frozen
class SystemHealth:
    """How the machine and whoever leads do."""

    measure: Measure
    store: int
    """Bytes of the store."""
    lead_age: timedelta | None
    """How long ago whoever leads last said that it lives; None when nobody leads."""
    gateway: bool | None
    """Whether the gateway answers; None when nobody leads."""

    def words(self) -> Sequence[str]:
        """Say it in few words each."""
        found = self.measure
        said = [
            f"load {found.load:.1f} on {found.cpus:g} processors",
            f"{format_size(found.memory_free)} of {format_size(found.memory)} memory free",
            f"{format_size(found.disk_free)} of {format_size(found.disk)} disk free",
            f"store {format_size(self.store)}",
        ]
        if self.gateway is not None:
            said.append("gateway answers" if self.gateway else "gateway does not answer")
        if self.lead_age is not None:
            said.append(f"leader heard {format_duration(self.lead_age)} ago")
        return said


async def system_health(
    configuration: Configuration, lead: Lead | None, now: datetime, *, gateway: bool = True
) -> SystemHealth:
    """Look at this machine and, unless *gateway* is False, at whether the gateway answers."""
    home = configuration.settings.home
    place = next((folder for folder in (home, *home.parents) if folder.exists()), Path("/"))
    return SystemHealth(
        measure=await compose.host().measure(str(place)),
        store=compose.store_size(home),
        lead_age=lead_age(lead, now),
        gateway=compose.gateway_answers(home) if lead is not None and gateway else None,
    )


def lead_age(lead: Lead | None, now: datetime) -> timedelta | None:
    """Return how long ago *lead* said that it lives."""
    return None if lead is None else max(now - lead.renewed_at, timedelta(0))


def agent_health_json(found: AgentHealth) -> dict[str, Any]:
    """Return how an agent stands as JSON."""
    return {
        "id": found.agent_id,
        "task": found.task,
        "task_id": found.task_id,
        "run": found.run_id,
        "condition": found.condition.value,
        "since": found.since.isoformat(),
        "evidence": list(found.reasons),
        "answer": found.grade.value,
        "doing": found.doing or None,
        "worked_at": found.worked_at.isoformat(),
    }


def health_json(found: Health, system: SystemHealth) -> dict[str, Any]:
    """Return all of it as JSON."""
    work = found.work
    return {
        "agents": [agent_health_json(agent) for agent in found.agents],
        "alerts": [alert_json(alert) for alert in found.alerts],
        "work": {
            "completed": work.completed,
            "failed": work.failed,
            "at_work": work.at_work,
            "waiting": work.waiting,
            "success": None if work.success is None else round(work.success, 4),
            "queue_age_s": round(work.queue_age.total_seconds(), 3),
            "attempts": work.tries,
            "failed_attempts": work.failed_tries,
        },
        "system": system_json(system),
    }


def system_json(system: SystemHealth) -> dict[str, Any]:
    """Return how a machine does as JSON."""
    measure = system.measure
    return {
        "load": round(measure.load, 2),
        "cpus": measure.cpus,
        "memory": measure.memory,
        "memory_free": measure.memory_free,
        "disk": measure.disk,
        "disk_free": measure.disk_free,
        "store": system.store,
        "gateway": system.gateway,
        "lead_age_s": None if system.lead_age is None else round(system.lead_age.total_seconds(), 3),
    }


def alert_json(alert: Alert) -> dict[str, Any]:
    """Return an alert as JSON."""
    return {
        "name": alert.name,
        "project": alert.project,
        "limit": alert.limit,
        "value": alert.value,
        "told": alert.told,
        "since": alert.raised_at.isoformat(),
    }
