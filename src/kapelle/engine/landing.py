"""What came of a trial, written down: changes that landed, suspects, and changes that go back to their agents."""

from collections.abc import Iterable, Sequence

from kapelle.core.attempt import Attempt, Outcome, PromptRecord
from kapelle.core.batch_events import BatchBroke, CheckFlaked
from kapelle.core.events import (
    ChangeConflicted,
    ChangeMerged,
    ChangeReturned,
    GateFailed,
    GatePassed,
)
from kapelle.core.frozen import replace
from kapelle.core.gate import Receipt
from kapelle.core.ids import PromptId
from kapelle.core.merge import Change, ChangeState, Integration
from kapelle.core.store import Tx
from kapelle.core.task import Task, TaskState, advance
from kapelle.engine.ending import close, finish, give_up_attempt, moved_event
from kapelle.engine.gating import Gating, log_checks
from kapelle.engine.integrate import Landed, Merging, Proven, Red, SentBack, Trial, Tried
from kapelle.engine.world import World


def write_trial_down(world: World, tx: Tx, trial: Trial, found: Tried) -> None:
    """Write down what came of *trial*, for those of its changes that are still queued."""
    put_receipts(tx, found.proven)
    if found.room_ready:
        tx.agents.put_workspace(replace(trial.room, ready=True))
    for back in found.sent_back:
        _send_back(world, tx, back)
    if found.landed is not None:
        _land(tx, trial, found, found.landed)
    if found.red is not None:
        _suspect(tx, trial, found.red)
    for entry in trial.entries:
        # Whatever waits on is tried no more, just now.
        change = tx.changes.get(entry.change.change_id)
        if change is not None and change.state is ChangeState.QUEUED and change.batch_id == trial.batch_id:
            tx.changes.put(replace(change, batch_id=None))
    if found.refused:
        for entry in trial.entries:
            current = _current(tx, entry)
            if current is not None:
                change, task, attempt = current
                tx.changes.put(replace(change, state=ChangeState.REFUSED, ended_at=tx.now, note=found.refused))
                give_up_attempt(tx, task, attempt, Outcome.CONFLICT, found.refused, chance=world.chance.share())


def put_receipts(tx: Tx, proven: Iterable[Proven]) -> None:
    """Keep the proof of what was gated."""
    for entry in proven:
        _put_receipt(tx, entry.gating, entry.commit, entry.changed)


def _current(tx: Tx, entry: Merging) -> tuple[Change, Task, Attempt] | None:
    """Return the change, its task and its attempt as they are now, or None when the change is queued no more."""
    change, task = tx.changes.get(entry.change.change_id), tx.tasks.get(entry.task.task_id)
    attempt = tx.attempts.get(entry.attempt.attempt_id)
    if change is None or task is None or attempt is None or change.state is not ChangeState.QUEUED:
        return None
    return change, task, attempt


def _land(tx: Tx, trial: Trial, found: Tried, landed: Landed) -> None:
    current = [_current(tx, entry) for entry in landed.entries]
    if None in current:
        # Somebody cancelled one of them meanwhile. What was gated holds its work and may not land; the others are tried anew.
        return
    for change, task, attempt in [entry for entry in current if entry is not None]:
        proof = _prove(tx, task, change, landed)
        merged = replace(change, state=ChangeState.MERGED, ended_at=tx.now, merged_as=landed.commit, proof=proof, red="")
        tx.changes.put(merged)
        tx.log(
            ChangeMerged(
                run_id=task.run_id,
                task_id=task.task_id,
                change_id=change.change_id,
                target=change.target,
                commit=landed.commit,
                receipt=proof or "",
            )
        )
        close(tx, attempt, Outcome.SUCCEEDED)
        finish(tx, replace(task, commit=landed.commit), TaskState.COMPLETED)
    if landed.gating is not None and not landed.gating.reused:
        _log_checks(tx, landed.entries, landed.gating)
        _put_receipt(tx, landed.gating, landed.commit, landed.changed, landed.entries)
    tx.changes.put_integration(
        Integration(
            repository=trial.repository,
            target=trial.target,
            line=trial.first.run.line,
            tip=landed.commit,
            delivered=found.delivered,
        )
    )


def _prove(tx: Tx, task: Task, change: Change, landed: Landed) -> str | None:
    """Log that the gate passed on the merged tree, and return the key of the receipt."""
    gating = landed.gating
    if gating is None:
        return None
    run_id, task_id = task.run_id, task.task_id
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
    if change.red == gating.tree:
        tx.log(CheckFlaked(run_id=run_id, task_id=task_id, gate=gating.gate.name, tree=gating.tree, before=change.note))
    return gating.key


def _put_receipt(tx: Tx, gating: Gating, commit: str, changed: tuple[str, ...], entries: tuple[Merging, ...] = ()) -> None:
    if gating.reused:
        return
    tx.changes.put_receipt(
        Receipt(
            key=gating.key,
            tree=gating.tree,
            gate=gating.gate.name,
            commit=commit,
            checks=gating.verdict.checks,
            tool_calls=sum(entry.attempt.tool_calls for entry in entries),
            declared=tuple(dict.fromkeys(glob for entry in entries for glob in entry.task.spec.writes)),
            changed=changed,
            made_at=tx.now,
        )
    )


def _log_checks(tx: Tx, entries: Sequence[Merging], gating: Gating) -> None:
    first = entries[0].task
    log_checks(tx, first.run_id, first.task_id if len(entries) == 1 else None, gating, "merged")


def _suspect(tx: Tx, trial: Trial, red: Red) -> None:
    """Mark those that were tried as suspects, and let the other suspects wait their turn again."""
    tried = {entry.change.change_id for entry in red.entries}
    if red.gating is not None:
        _log_checks(tx, red.entries, red.gating)
    for change in tx.changes.queued():
        if (change.repository, change.target) != (trial.repository, trial.target):
            continue
        if change.change_id in tried:
            tx.changes.put(replace(change, red=red.tree, note=red.reason))
        elif change.red:
            tx.changes.put(replace(change, red="", note=""))
    for run_id in dict.fromkeys(entry.run.run_id for entry in red.entries):
        tx.log(
            BatchBroke(
                run_id=run_id,
                batch_id=trial.batch_id,
                target=trial.target,
                changes=tuple(entry.change.change_id for entry in red.entries),
                reason=red.reason,
                tree=red.tree,
            )
        )


def _send_back(world: World, tx: Tx, back: SentBack) -> None:
    """Send a change back to its agent, or give the attempt up when that was done often enough."""
    current = _current(tx, back.entry)
    if current is None:
        return
    change, task, attempt = current
    _log_why(tx, task, change, back)
    red = back.gating.tree if back.gating is not None else ""
    tx.changes.put(replace(change, state=ChangeState.RETURNED, ended_at=tx.now, note=back.reason, red=red))
    tx.log(ChangeReturned(run_id=task.run_id, task_id=task.task_id, change_id=change.change_id, reason=back.reason))
    run = back.entry.run
    driver = world.driver(run.spec.config(attempt.config).program)
    if attempt.merge_returns >= run.spec.limits.merge_returns or not driver.capabilities.conversation or not back.prompt:
        give_up_attempt(tx, task, attempt, Outcome.CONFLICT, back.reason, chance=world.chance.share())
        return
    # What was merged into the workspace is no longer the agent's own change: it is now compared with the new base.
    tx.agents.put_workspace(replace(back.entry.workspace, base=back.onto))
    again = replace(attempt, merge_returns=attempt.merge_returns + 1, round=attempt.round + 1)
    tx.attempts.put(again)
    prompt_id = PromptId(world.chance.uuid())
    tx.attempts.put_prompt(
        PromptRecord(prompt_id=prompt_id, attempt_id=attempt.attempt_id, round=again.round, text=back.prompt)
    )
    returned = replace(advance(task, TaskState.RUNNING, tx.now), round=again.round)
    tx.tasks.put(returned)
    tx.log(moved_event(returned, task.state, back.reason))


def _log_why(tx: Tx, task: Task, change: Change, back: SentBack) -> None:
    run_id, task_id = task.run_id, task.task_id
    if back.gating is None:
        tx.log(ChangeConflicted(run_id=run_id, task_id=task_id, change_id=change.change_id, files=back.files))
        return
    log_checks(tx, run_id, task_id, back.gating, "merged")
    failing = back.gating.verdict.failing
    if failing is not None:
        gate, tree = back.gating.gate.name, back.gating.tree
        tx.log(GateFailed(run_id=run_id, task_id=task_id, gate=gate, tree=tree, check=failing.name, where="merged"))
