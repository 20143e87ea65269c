"""Alerts: in every heartbeat it is looked whether a bound was passed by; told once, and once when it holds again."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from kapelle.core.alerting import Bound, Measured, bounds, not_measured
from kapelle.core.liveness_events import AlertCleared, AlertRaised
from kapelle.core.ports import Measure
from kapelle.core.run import Run
from kapelle.core.standings import Alert
from kapelle.core.store import Tx, View
from kapelle.core.task import TERMINAL, TaskState
from kapelle.engine.world import World

HOUR = timedelta(hours=1)


class AlertStage:
    """Raises and clears alerts."""

    name = "alerts"

    def __init__(self, world: World) -> None:
        self._world = world
        self._next: datetime | None = None
        self._some = False
        """Whether there is any bound."""

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        beat = self._world.settings.heartbeat
        if not beat:
            return None
        if self._next is not None and now < self._next <= now + beat:
            return self._next if self._some else None
        measure = await self._world.host.measure(self._world.folders.root) if self._some else None
        self._some = await self._world.store.transact(lambda tx: _look(tx, measure), term=self._world.term)
        # Where a bound has just been found, the machine is measured for it at the next step.
        self._next = now if self._some and measure is None else now + beat
        return self._next if self._some else None


def _look(tx: Tx, measure: Measure | None) -> bool:
    """Raise what is to be raised, and clear what is to be cleared; say whether there is any bound."""
    raised = {(alert.name, alert.project): alert for alert in tx.standings.alerts()}
    projects: dict[str, list[Run]] = {}
    for run in tx.runs.open():
        projects.setdefault(run.spec.project, []).append(run)
    bounded: set[tuple[str, str]] = set()
    unmeasured: set[tuple[str, str]] = set()
    for project, runs in projects.items():
        # What the file said when the newest of them was submitted.
        limits = max(runs, key=lambda run: (run.submitted_at, run.run_id)).spec.alerts
        if not limits.given:
            continue
        found = _measured(tx, project, runs, tx.now, measure)
        unmeasured.update((name, project) for name in not_measured(limits, found))
        for bound in bounds(limits, found):
            bounded.add((bound.name, project))
            _settle(tx, project, runs[-1], bound, raised.get((bound.name, project)))
    for key, alert in raised.items():
        # What nobody could measure just now stays as it was told: a new leader has not looked at the machine yet.
        if key not in bounded | unmeasured:
            # Nobody asks any more: its runs have ended, or the bound was taken back.
            tx.standings.clear_alert(alert.name, alert.project)
            tx.log(AlertCleared(alert=alert.name, limit=alert.limit, value=alert.value))
    return bool(bounded) or any(runs and runs[-1].spec.alerts.given for runs in projects.values())


def _settle(tx: Tx, project: str, run: Run, bound: Bound, before: Alert | None) -> None:
    if bound.passed:
        since = tx.now if before is None else before.raised_at
        alert = Alert(name=bound.name, project=project, limit=bound.limit, value=bound.value, told=bound.told, raised_at=since)
        tx.standings.raise_alert(alert)
        if before is None:
            tx.log(AlertRaised(run_id=run.run_id, alert=bound.name, limit=bound.limit, value=bound.value, told=bound.told))
    elif before is not None:
        tx.standings.clear_alert(bound.name, project)
        tx.log(AlertCleared(run_id=run.run_id, alert=bound.name, limit=bound.limit, value=bound.value))


def _measured(view: View, project: str, runs: Sequence[Run], now: datetime, measure: Measure | None) -> Measured:
    counts = [
        (state, count) for overview in view.runs.overviews([run.run_id for run in runs]) for state, count in overview.counts
    ]
    waiting = [task for run in runs if not run.paused for task in view.tasks.due_of_run(run.run_id, now, 1)]
    since = [max(task.submitted_at, task.due_at or task.submitted_at) for task in waiting]
    return Measured(
        failed=sum(count for state, count in counts if state is TaskState.FAILED),
        ended=sum(count for state, count in counts if state in TERMINAL),
        queue_age=max((now - moment for moment in since), default=timedelta(0)),
        disk_free=None if measure is None else measure.disk_free,
        memory_free=None if measure is None else measure.memory_free,
        spent_in_an_hour=view.ledger.total(project=project, since=now - HOUR).cost_usd,
    )
