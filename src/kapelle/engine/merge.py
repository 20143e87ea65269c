"""Merge: one queue per target; merge, gate the merged tree, write it down, then move the refs.

A state picture of one target::

    tip (integration ref) --merge a batch--> merged commit --gate passes--> store: tip = merged commit, tasks completed
                                |                  |                            |
                             conflict           gate fails                 integration ref and, by delivery, the target
                                |          (one change: see core.merge)    follow; both can be done again at any time
                                +--- back to the agent, with the facts

The store is written before any ref moves. A crash in between leaves refs behind the store, and the next step moves them; it
never leaves a ref ahead of its proof.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from datetime import datetime

from kapelle.core.attempt import Outcome
from kapelle.core.batch_events import BatchTried
from kapelle.core.errors import KapelleError
from kapelle.core.events import TargetDelivered, TargetHeldUp
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AttemptId, BatchId, ChangeId
from kapelle.core.merge import (
    Batch,
    Change,
    ChangeState,
    DeliveryMode,
    Integration,
    NotBefore,
    hold_up,
    next_batch,
    order,
    undelivered,
)
from kapelle.core.run import Run, RunState
from kapelle.core.store import Tx
from kapelle.core.task import TaskState
from kapelle.engine.acts import Acts, Finding
from kapelle.engine.ending import give_up_attempt, run_of
from kapelle.engine.integrate import Integrator, Merging, Red, Rooms, Trial, Tried, gates_of
from kapelle.engine.landing import put_receipts, write_trial_down
from kapelle.engine.rooms import gate_workspace
from kapelle.engine.stillness import Restless, leave_for_now
from kapelle.engine.world import World

LARGEST = 100
"""Changes that are looked at for one batch."""
Target = tuple[str, str]
"""A repository and a branch of it."""


@frozen
class _Delivery:
    integration: Integration
    run: Run
    rooms: Rooms


class MergeStage:
    """Works the queue of every target, one batch at a time."""

    name = "merge"

    def __init__(self, world: World, acts: Acts) -> None:
        self._world = world
        self._acts = acts
        self._integrator = Integrator(world)
        self._again_at: dict[tuple[str, str, str], datetime] = {}
        """When a target that could not be moved is tried again."""
        self._followed: dict[tuple[str, str, str], str] = {}
        """Where this leader has moved integration refs to that nobody delivers just now."""
        self._restless: dict[ChangeId, datetime] = {}
        """When changes are tried again whose agents could not be held still."""

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        findings = self._acts.take()
        wakes: list[datetime] = []

        def decide(tx: Tx) -> tuple[list[Trial], list[_Delivery], list[Integration]]:
            for finding in findings:
                finding(tx)
            wakes.clear()
            return self._decide(tx, wakes)

        try:
            trials, deliveries, behind = await self._world.store.transact(decide, term=self._world.term)
        except BaseException:
            self._acts.give_back(findings)
            raise
        for entry in deliveries:
            self._acts.start((entry.integration.repository, entry.integration.target), self._deliver(entry))
        for integration in behind:
            self._acts.start((integration.repository, integration.target), self._follow(integration))
        for trial in trials:
            self._acts.start((trial.repository, trial.target), self._integrate(trial))
        wakes += [moment for moment in self._again_at.values() if moment > now]
        return now if findings else min(wakes, default=None)

    # --- Deciding, inside the transaction ---

    def _decide(self, tx: Tx, wakes: list[datetime]) -> tuple[list[Trial], list[_Delivery], list[Integration]]:
        deliveries: list[_Delivery] = []
        behind: list[Integration] = []
        busy: set[Target] = set()
        for integration in tx.changes.integrations():
            key = (integration.repository, integration.target)
            if self._acts.running(key):
                busy.add(key)
                continue
            if key in busy or self._again_at.get(_line(integration), tx.now) > tx.now:
                continue
            run = self._wants_delivery(tx, integration)
            if run is not None:
                deliveries.append(_Delivery(integration=integration, run=run, rooms=self._rooms(tx, run)))
                busy.add(key)
            elif undelivered(integration) is not None and self._followed.get(_line(integration)) != integration.tip:
                # Until it is delivered, the integration ref alone holds what was merged.
                behind.append(integration)
                busy.add(key)
        queues: dict[Target, list[Change]] = defaultdict(list)
        self._restless = {change_id: until for change_id, until in self._restless.items() if until > tx.now}
        wakes += self._restless.values()
        for change in order(tx.changes.queued()):
            # Others go on meanwhile: it may take a while.
            if change.change_id not in self._restless:
                queues[change.repository, change.target].append(change)
        trials: list[Trial] = []
        for key, queue in queues.items():
            if key in busy or self._acts.running(key):
                continue
            found = self._next_trial(tx, queue)
            if isinstance(found, Trial):
                trials.append(found)
            elif found is not None:
                wakes.append(found.moment)
        return trials, deliveries, behind

    def _wants_delivery(self, tx: Tx, integration: Integration) -> Run | None:
        """Return the run for whose sake the target should be moved now, or None."""
        if integration.tip == integration.delivered:
            return None
        for run in tx.runs.open():
            spec = run.spec
            if (spec.repository or "", spec.target or "", run.line) != _line(integration):
                continue
            at_end = run.state is RunState.DELIVERING and spec.delivery is DeliveryMode.END
            if spec.delivery is DeliveryMode.EACH or at_end:
                return run
        return None

    def _rooms(self, tx: Tx, run: Run) -> Rooms:
        """Return the rooms of all runs on the line of *run*: a run is open for as long as work of it is not delivered."""
        spec = run.spec
        line = (spec.repository, spec.target, run.line)
        others = [other for other in tx.runs.open() if (other.spec.repository, other.spec.target, other.line) == line]
        return tuple((other, gate_workspace(self._world, tx, other)) for other in others if gates_of(other))

    def _next_trial(self, tx: Tx, queue: list[Change]) -> Trial | NotBefore | None:
        """Return what is tried next on the target of *queue*."""
        entries: dict[ChangeId, Merging] = {}
        ready = [change for change in queue if not change.waits_for_a_person]
        for change in [change for change in ready if change.red] or ready[:LARGEST]:
            entry = self._merging(tx, change)
            if entry is not None:
                entries[change.change_id] = entry
        if not entries:
            return None
        first = next(iter(entries.values()))
        queued = [entry.change for entry in entries.values()]
        batch = next_batch(queued, _kin(entries), first.run.spec.merge, tx.now)
        return self._trial(tx, batch, entries) if isinstance(batch, Batch) else batch

    def _trial(self, tx: Tx, batch: Batch, entries: Mapping[ChangeId, Merging]) -> Trial:
        batch_id = BatchId(self._world.new_id("b"))
        marked = [replace(change, batch_id=batch_id) for change in batch.changes]
        for change in marked:
            tx.changes.put(change)
        members = tuple(replace(entries[change.change_id], change=change) for change in marked)
        run, change = members[0].run, members[0].change
        integration = tx.changes.integration(change.repository, change.target, run.line)
        for run_id in dict.fromkeys(member.run.run_id for member in members):
            tx.log(
                BatchTried(
                    run_id=run_id,
                    batch_id=batch_id,
                    target=change.target,
                    changes=tuple(member.change.change_id for member in members),
                    again=batch.again,
                )
            )
        return Trial(
            batch_id=batch_id,
            entries=members,
            again=batch.again,
            room=gate_workspace(self._world, tx, run),
            rooms=self._rooms(tx, run) if undelivered(integration) is not None else (),
            integration=integration,
        )

    def _merging(self, tx: Tx, change: Change) -> Merging | None:
        task, attempt = tx.tasks.get(change.task_id), tx.attempts.get(change.attempt_id)
        if task is None or attempt is None or task.state is not TaskState.MERGING:
            tx.changes.put(replace(change, state=ChangeState.WITHDRAWN, ended_at=tx.now))
            return None
        run = run_of(tx, task)
        workspace = tx.agents.workspace(attempt.workspace_id) if attempt.workspace_id is not None else None
        if workspace is None:
            give_up_attempt(tx, task, attempt, Outcome.CONFLICT, "its workspace is gone", chance=self._world.chance.share())
            return None
        return Merging(change=change, task=task, attempt=attempt, run=run, workspace=workspace)

    # --- Acts ---

    async def _integrate(self, trial: Trial) -> Finding:
        try:
            found = await self._integrator.integrate(trial)
        except Restless as restless:
            attempt_id, reason = restless.attempt_id, restless.reason
            return lambda tx: self._leave(tx, trial, attempt_id, reason)
        except KapelleError as error:
            if len(trial.entries) == 1:
                found = Tried(refused=error.in_full)
            else:
                # It may be the fault of one of them: bisection finds out.
                found = Tried(red=Red(entries=trial.entries, reason=error.in_full))
        return lambda tx: write_trial_down(self._world, tx, trial, found)

    def _leave(self, tx: Tx, trial: Trial, attempt_id: AttemptId, reason: str) -> None:
        """Leave the change of an attempt for now, whose agent does not stand still; all others are tried without it."""
        write_trial_down(self._world, tx, trial, Tried())
        for entry in trial.entries:
            task = tx.tasks.get(entry.task.task_id)
            if entry.attempt.attempt_id == attempt_id and task is not None and task.state is TaskState.MERGING:
                self._restless[entry.change.change_id] = leave_for_now(tx, task, reason)

    async def _deliver(self, entry: _Delivery) -> Finding:
        integration = entry.integration
        proven = ()
        try:
            delivered, proven = await self._integrator.deliver(integration, entry.rooms)
        except KapelleError as error:
            delivered = hold_up(integration, error.message, error.advice)

        def write(tx: Tx) -> None:
            put_receipts(tx, proven)
            now = tx.changes.integration(*_line(integration))
            if now is None or now.tip != integration.tip:
                return
            tx.changes.put_integration(delivered)
            key = _line(integration)
            if delivered.held_up:
                self._again_at[key] = tx.now + self._world.settings.redeliver
                if delivered.held_up != now.held_up:
                    tx.log(
                        TargetHeldUp(
                            run_id=entry.run.run_id,
                            target=delivered.target,
                            reason=delivered.why,
                            remedy=delivered.remedy,
                        )
                    )
                return
            self._again_at.pop(key, None)
            if delivered.tip != integration.tip:
                return
            tx.log(TargetDelivered(run_id=entry.run.run_id, target=delivered.target, commit=delivered.delivered))

        return write

    async def _follow(self, integration: Integration) -> None:
        key = _line(integration)
        try:
            await self._integrator.move_ref(integration)
        except KapelleError:
            self._again_at[key] = self._world.clock.now() + self._world.settings.redeliver
        else:
            self._followed[key] = integration.tip


def _line(integration: Integration) -> tuple[str, str, str]:
    return integration.repository, integration.target, integration.line


def _kin(entries: Mapping[ChangeId, Merging]) -> dict[ChangeId, Hashable]:
    """Return, for each change, all that the answer of its gate depends on: equal ones can be gated together."""
    return {
        change_id: (entry.run.line, entry.gate, entry.run.spec.workspace, entry.run.spec.merge)
        for change_id, entry in entries.items()
    }
