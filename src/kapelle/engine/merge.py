"""Merge: one queue per target; merge, gate the merged tree, write it down, then move the refs.

A state picture of one target::

    tip (integration ref) --merge change--> merged commit --gate passes--> store: tip = merged commit, task completed
                                |                  |                            |
                             conflict           gate fails                 integration ref and, by delivery, the target
                                +--- back to the agent, with the facts          follow; both can be done again at any time

The store is written before any ref moves. A crash in between leaves refs behind the store, and the next step moves them; it
never leaves a ref ahead of its proof.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from kapelle.core.attempt import Attempt, Outcome, PromptRecord
from kapelle.core.errors import KapelleError
from kapelle.core.events import (
    ChangeConflicted,
    ChangeMerged,
    ChangeReturned,
    GateFailed,
    GatePassed,
    TargetDelivered,
    TargetHeldUp,
)
from kapelle.core.gate import Receipt
from kapelle.core.ids import PromptId
from kapelle.core.merge import Change, ChangeState, DeliveryMode, Integration, order, undelivered
from kapelle.core.run import Run, RunState
from kapelle.core.store import Tx, WorkspaceRow
from kapelle.core.task import Task, TaskState, advance
from kapelle.core.wording import broke_when_merged, conflict
from kapelle.engine.acts import Acts, Finding
from kapelle.engine.ending import close, finish, give_up_attempt, moved_event, run_of
from kapelle.engine.gating import log_checks
from kapelle.engine.integrate import Broke, Conflicted, Integrated, Integrator, Merging, Unmergeable
from kapelle.engine.rooms import gate_workspace
from kapelle.engine.world import World


@dataclass(frozen=True, kw_only=True, slots=True)
class _Delivery:
    integration: Integration
    run: Run
    room: WorkspaceRow


class MergeStage:
    """Works the queue of every target, one change at a time."""

    name = "merge"

    def __init__(self, world: World, acts: Acts) -> None:
        self._world = world
        self._acts = acts
        self._integrator = Integrator(world)
        self._again_at: dict[tuple[str, str, str], datetime] = {}
        """When a target that could not be moved is tried again."""
        self._followed: dict[tuple[str, str, str], str] = {}
        """Where this leader has moved integration refs to that nobody delivers just now."""

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        findings = self._acts.take()

        def decide(tx: Tx) -> tuple[list[Merging], list[_Delivery], list[Integration]]:
            for finding in findings:
                finding(tx)
            return self._decide(tx, now)

        try:
            merging, deliveries, behind = await self._world.store.transact(decide, term=self._world.term)
        except BaseException:
            self._acts.give_back(findings)
            raise
        for entry in deliveries:
            key = (entry.integration.repository, entry.integration.target)
            self._acts.start(key, self._deliver(entry))
        for integration in behind:
            self._acts.start((integration.repository, integration.target), self._follow(integration))
        for entry in merging:
            self._acts.start((entry.change.repository, entry.change.target), self._integrate(entry))
        waiting = [moment for moment in self._again_at.values() if moment > now]
        return now if findings else min(waiting, default=None)

    def _decide(self, tx: Tx, now: datetime) -> tuple[list[Merging], list[_Delivery], list[Integration]]:
        deliveries: list[_Delivery] = []
        behind: list[Integration] = []
        busy: set[tuple[str, str]] = set()
        for integration in tx.changes.integrations():
            key = (integration.repository, integration.target)
            if self._acts.running(key):
                busy.add(key)
                continue
            if key in busy or self._again_at.get(_line(integration), now) > now:
                continue
            run = self._wants_delivery(tx, integration)
            if run is not None:
                deliveries.append(_Delivery(integration=integration, run=run, room=gate_workspace(self._world, tx, run)))
                busy.add(key)
            elif undelivered(integration) is not None and self._followed.get(_line(integration)) != integration.tip:
                # Until it is delivered, the integration ref alone holds what was merged.
                behind.append(integration)
                busy.add(key)
        merging: list[Merging] = []
        for change in order(tx.changes.queued()):
            key = (change.repository, change.target)
            if key in busy or self._acts.running(key):
                continue
            busy.add(key)
            entry = self._merging(tx, change)
            if entry is not None:
                merging.append(entry)
        return merging, deliveries, behind

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
        room = gate_workspace(self._world, tx, run)
        return Merging(
            change=change,
            task=task,
            attempt=attempt,
            run=run,
            workspace=workspace,
            room=room,
            integration=tx.changes.integration(change.repository, change.target, run.line),
        )

    # --- Acts ---

    async def _integrate(self, entry: Merging) -> Finding:
        try:
            found = await self._integrator.integrate(entry)
        except KapelleError as error:
            found = Unmergeable(reason=error.in_full)

        def write(tx: Tx) -> None:
            task, attempt = tx.tasks.get(entry.task.task_id), tx.attempts.get(entry.attempt.attempt_id)
            change = tx.changes.get(entry.change.change_id)
            if task is None or attempt is None or change is None or change.state is not ChangeState.QUEUED:
                return
            match found:
                case Integrated():
                    self._merged(tx, entry, change, task, attempt, found)
                case Conflicted():
                    tx.log(
                        ChangeConflicted(
                            run_id=task.run_id, task_id=task.task_id, change_id=change.change_id, files=found.files
                        )
                    )
                    text = conflict(change.target, found.files, found.diff)
                    reason = f"it conflicts with {change.target} in {', '.join(found.files)}"
                    self._give_back(tx, entry, change, task, attempt, text, reason, found.onto)
                case Broke():
                    self._broke(tx, entry, change, task, attempt, found)
                case Unmergeable(reason=reason):
                    tx.changes.put(replace(change, state=ChangeState.REFUSED, ended_at=tx.now, note=reason))
                    give_up_attempt(tx, task, attempt, Outcome.CONFLICT, reason, chance=self._world.chance.share())

        return write

    async def _deliver(self, entry: _Delivery) -> Finding:
        integration = entry.integration
        try:
            delivered = await self._integrator.deliver(integration, entry.run, entry.room)
        except KapelleError as error:
            delivered = replace(integration, held_up=error.in_full)

        def write(tx: Tx) -> None:
            now = tx.changes.integration(*_line(integration))
            if now is None or now.tip != integration.tip:
                return
            tx.changes.put_integration(delivered)
            key = _line(integration)
            if delivered.held_up:
                self._again_at[key] = tx.now + self._world.settings.redeliver
                if delivered.held_up != now.held_up:
                    tx.log(TargetHeldUp(run_id=entry.run.run_id, target=delivered.target, reason=delivered.held_up))
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

    # --- Writing it down ---

    def _merged(self, tx: Tx, entry: Merging, change: Change, task: Task, attempt: Attempt, found: Integrated) -> None:
        run_id, task_id = task.run_id, task.task_id
        if found.gating is not None:
            gating = found.gating
            if not gating.reused:
                log_checks(tx, task, gating, "merged")
            tx.log(
                GatePassed(
                    run_id=run_id,
                    task_id=task_id,
                    gate=gating.gate.name,
                    tree=gating.tree,
                    receipt=gating.key,
                    reused=gating.reused,
                    where="merged",
                )
            )
            tx.changes.put_receipt(
                Receipt(
                    key=gating.key,
                    tree=gating.tree,
                    gate=gating.gate.name,
                    commit=found.commit,
                    checks=gating.verdict.checks,
                    tool_calls=attempt.tool_calls,
                    declared=task.spec.writes,
                    changed=found.changed,
                    made_at=tx.now,
                )
            )
        self._keep_room(tx, entry.room, ready=found.room_ready)
        receipt = found.gating.key if found.gating is not None else change.receipt
        tx.changes.put(replace(change, state=ChangeState.MERGED, ended_at=tx.now, merged_as=found.commit, receipt=receipt))
        tx.changes.put_integration(
            Integration(
                repository=change.repository,
                target=change.target,
                line=entry.run.line,
                tip=found.commit,
                delivered=found.delivered,
                held_up="",
            )
        )
        tx.log(
            ChangeMerged(
                run_id=run_id,
                task_id=task_id,
                change_id=change.change_id,
                target=change.target,
                commit=found.commit,
                receipt=receipt or "",
            )
        )
        close(tx, attempt, Outcome.SUCCEEDED)
        finish(tx, replace(task, commit=found.commit), TaskState.COMPLETED)

    def _broke(self, tx: Tx, entry: Merging, change: Change, task: Task, attempt: Attempt, found: Broke) -> None:
        self._keep_room(tx, entry.room, ready=found.room_ready)
        log_checks(tx, task, found.gating, "merged")
        failing = found.gating.verdict.failing
        if failing is None:
            give_up_attempt(
                tx, task, attempt, Outcome.GATE_FAILED, "the gate did not pass when merged", chance=self._world.chance.share()
            )
            return
        tx.log(
            GateFailed(
                run_id=task.run_id,
                task_id=task.task_id,
                gate=found.gating.gate.name,
                tree=found.gating.tree,
                check=failing.name,
                where="merged",
            )
        )
        text = broke_when_merged(change.target, found.gating.gate, failing, found.diff)
        reason = f"the check {found.gating.gate.name}/{failing.name} fails on the merged tree"
        self._give_back(tx, entry, change, task, attempt, text, reason, found.onto)

    def _give_back(
        self, tx: Tx, entry: Merging, change: Change, task: Task, attempt: Attempt, text: str, reason: str, onto: str
    ) -> None:
        """Send the change back to its agent, or give the attempt up when that was done often enough."""
        tx.changes.put(replace(change, state=ChangeState.RETURNED, ended_at=tx.now, note=reason))
        tx.log(ChangeReturned(run_id=task.run_id, task_id=task.task_id, change_id=change.change_id, reason=reason))
        driver = self._world.driver(entry.run.spec.config(attempt.config).program)
        if attempt.merge_returns >= entry.run.spec.limits.merge_returns or not driver.capabilities.conversation:
            outcome = Outcome.CONFLICT
            give_up_attempt(tx, task, attempt, outcome, reason, chance=self._world.chance.share())
            return
        # What was merged into the workspace is no longer the agent's own change: it is now compared with the new base.
        tx.agents.put_workspace(replace(entry.workspace, base=onto))
        back = replace(attempt, merge_returns=attempt.merge_returns + 1, round=attempt.round + 1)
        tx.attempts.put(back)
        prompt_id = PromptId(self._world.chance.uuid())
        tx.attempts.put_prompt(PromptRecord(prompt_id=prompt_id, attempt_id=attempt.attempt_id, round=back.round, text=text))
        returned = replace(advance(task, TaskState.RUNNING, tx.now), round=back.round)
        tx.tasks.put(returned)
        tx.log(moved_event(returned, task.state, reason))

    @staticmethod
    def _keep_room(tx: Tx, room: WorkspaceRow, *, ready: bool) -> None:
        tx.agents.put_workspace(replace(room, ready=room.ready or ready))


def _line(integration: Integration) -> tuple[str, str, str]:
    return integration.repository, integration.target, integration.line
