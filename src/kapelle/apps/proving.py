"""The merge queue and its proofs, as every door shows them: what waits, what a receipt says, and whether it holds."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kapelle.apps.delivering import HeldUp, held_up
from kapelle.core.attempt import Attempt
from kapelle.core.errors import KapelleError, NotFound
from kapelle.core.events import GatePassed
from kapelle.core.frozen import frozen
from kapelle.core.gate import CheckState, Gate, Receipt
from kapelle.core.merge import Change, ChangeState, Integration, order
from kapelle.core.run import Run
from kapelle.core.store import View
from kapelle.core.task import Task

if TYPE_CHECKING:
    from kapelle.apps.desk import Desk

RECENT = 10
"""Merged changes of an open run that are shown with the queue."""


@frozen
class Queued:
    """A change in the queue, or one that left it."""

    change: Change
    task: Task
    run: Run
    receipt: Receipt | None

    @property
    def standing(self) -> str:
        """Where it stands, in a few words."""
        change = self.change
        if change.state is not ChangeState.QUEUED:
            return change.state.value
        if change.waits_for_a_person:
            return "waits for approval"
        if change.batch_id is not None:
            return "tried now"
        return "suspect" if change.red else "waits"


@frozen
class TargetQueue:
    """The queue of one target."""

    repository: str
    target: str
    queued: tuple[Queued, ...]
    merged: tuple[Queued, ...]
    integrations: tuple[Integration, ...]
    held: tuple[HeldUp, ...]
    """Why the target could not be moved, when it could not."""


def queues(view: View) -> list[TargetQueue]:
    """Return the queue of every target for which something waits or an open run has merged."""
    runs = {run.run_id: run for run in view.runs.open()}
    waiting = [change for change in view.changes.queued() if change.run_id in runs]
    merged = [change for run_id in runs for change in view.changes.merged(run_id, RECENT)]
    merged.sort(key=lambda change: str(change.ended_at))
    integrations = view.changes.integrations()
    found: list[TargetQueue] = []
    for place in dict.fromkeys((change.repository, change.target) for change in (*waiting, *merged)):
        repository, target = place
        own = order([change for change in waiting if (change.repository, change.target) == place])
        last = [change for change in merged if (change.repository, change.target) == place][-RECENT:]
        found.append(
            TargetQueue(
                repository=repository,
                target=target,
                queued=tuple(_queued(view, change, runs[change.run_id]) for change in own),
                merged=tuple(_queued(view, change, runs[change.run_id]) for change in last),
                held=tuple(held_up(view, [run for run in runs.values() if _goes_to(run, repository, target)])),
                integrations=tuple(entry for entry in integrations if (entry.repository, entry.target) == place),
            )
        )
    return found


def merging(view: View) -> list[Queued]:
    """Return what waits in all merge queues, in their order."""
    found: list[Queued] = []
    for change in order(view.changes.queued()):
        run, task = view.runs.get(change.run_id), view.tasks.get(change.task_id)
        if run is not None and task is not None:
            found.append(Queued(change=change, task=task, run=run, receipt=None))
    return found


def _queued(view: View, change: Change, run: Run) -> Queued:
    key = change.proof or change.receipt
    receipt = view.changes.receipt(key) if key is not None else None
    task = view.tasks.get(change.task_id)
    if task is None:
        raise NotFound(f"the task {change.task_id} of a change is not in the store")
    return Queued(change=change, task=task, run=run, receipt=receipt)


def _goes_to(run: Run, repository: str, target: str) -> bool:
    return (run.spec.repository, run.spec.target) == (repository, target)


def queue_json(queue: TargetQueue) -> dict[str, Any]:
    """Return a queue as JSON."""
    return {
        "repository": queue.repository,
        "target": queue.target,
        "queued": [_entry_json(entry, position) for position, entry in enumerate(queue.queued, 1)],
        "merged": [_entry_json(entry, None) for entry in queue.merged],
        "lines": [
            {
                "line": entry.line or None,
                "tip": entry.tip,
                "delivered": entry.delivered,
                "held_up": entry.why or None,
                "what_to_do": entry.remedy or None,
            }
            for entry in queue.integrations
        ],
    }


def _entry_json(entry: Queued, position: int | None) -> dict[str, Any]:
    change = entry.change
    return {
        "position": position,
        "id": change.change_id,
        "task": entry.task.name,
        "task_id": entry.task.task_id,
        "run_id": entry.run.run_id,
        "standing": entry.standing,
        "priority": entry.task.spec.priority.value,
        "batch": change.batch_id,
        "head": change.head,
        "protected": list(change.protected),
        "approved_by": change.approved_by or None,
        "note": change.note or None,
        "merged_as": change.merged_as,
        "receipt": entry.receipt.key if entry.receipt is not None else None,
        "ready_at": change.ready_at.isoformat(),
    }


@frozen
class Proof:
    """All that is kept to show that a task is done."""

    run: Run
    task: Task
    attempt: Attempt | None
    change: Change | None
    own: Receipt | None
    """For the tree that the agent left."""
    merged: Receipt | None
    """For the tree that it was merged into."""
    others: tuple[str, ...] = ()
    """Tasks that landed with it, in the same commit."""


def proof_of(view: View, run: Run, task: Task) -> Proof:
    """Return the proof of *task*.

    Raises:
        NotFound: nothing was proven yet.
    """
    attempts = view.attempts.of_task(task.task_id)
    changes = view.changes.of_task(task.task_id)
    change = changes[-1] if changes else None
    own = _own_receipt(view, run, task, change)
    if own is None:
        raise NotFound(
            f"there is no receipt for {task.name}: it is {task.state}, and no work of it passed a gate",
            remedy=f"`kapelle show {task.task_id}` says how it stands.",
        )
    others: list[str] = []
    if change is not None and change.merged_as is not None:
        for other in view.changes.merged_as(change.merged_as):
            found = view.tasks.get(other.task_id)
            if found is not None and found.task_id != task.task_id:
                others.append(found.name)
    return Proof(
        run=run,
        task=task,
        attempt=attempts[-1] if attempts else None,
        change=change,
        own=own,
        merged=view.changes.receipt(change.proof) if change is not None and change.proof is not None else None,
        others=tuple(others),
    )


def _own_receipt(view: View, run: Run, task: Task, change: Change | None) -> Receipt | None:
    """Return the receipt for what the agent left; a task that changed nothing has one too, which only the log names."""
    if change is not None:
        return view.changes.receipt(change.receipt) if change.receipt is not None else None
    key, after = "", 0
    while entries := view.events(after, run_id=run.run_id):
        after = entries[-1].seq
        passed = [entry.event for entry in entries if entry.event.task_id == task.task_id]
        key = next((event.receipt for event in reversed(passed) if isinstance(event, GatePassed)), key)
    return view.changes.receipt(key) if key else None


def proof_json(proof: Proof) -> dict[str, Any]:
    """Return a proof as JSON."""
    change = proof.change
    return {
        "task": proof.task.name,
        "task_id": proof.task.task_id,
        "run_id": proof.run.run_id,
        "state": proof.task.state.value,
        "attempt": proof.attempt.number if proof.attempt is not None else None,
        "agent": proof.attempt.config if proof.attempt is not None else None,
        "tool_calls": proof.attempt.tool_calls if proof.attempt is not None else None,
        "declared": list(proof.task.spec.writes),
        "changed": list(proof.own.changed) if proof.own is not None else [],
        "protected": list(change.protected) if change is not None else [],
        "approved_by": (change.approved_by or None) if change is not None else None,
        "head": change.head if change is not None else None,
        "merged_as": change.merged_as if change is not None else None,
        "landed_with": list(proof.others),
        "workspace": receipt_json(proof.own) if proof.own is not None else None,
        "merged": receipt_json(proof.merged) if proof.merged is not None else None,
    }


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as JSON."""
    return {
        "key": receipt.key,
        "gate": receipt.gate,
        "tree": receipt.tree,
        "commit": receipt.commit or None,
        "made_at": receipt.made_at.isoformat(),
        "checks": [
            {
                "name": check.name,
                "run": check.run,
                "state": check.state.value,
                "required": check.required,
                "exit_code": check.exit_code,
                "seconds": round(check.seconds, 3),
                "log_sha256": check.log_hash or None,
                "log": check.log_path or None,
            }
            for check in receipt.checks
        ],
    }


# --- Verifying --------------------------------------------------------------------------------------------------------


@frozen
class Point:
    """One thing that was looked at."""

    holds: bool | None
    """None when it cannot be told any more."""
    what: str


class ProofState(StrEnum):
    """What all points together say of a commit."""

    HOLDS = "holds"
    BROKEN = "broken"
    """Something is not so."""
    NO_GATE = "no_gate"
    """All is as it was written down, and no check ever ran: nothing is proven."""
    TREE_ONLY = "tree_only"
    """Its tree is proven, and the merge queue did not make the commit."""


@frozen
class Verified:
    """What came of looking at the proof of a commit again."""

    commit: str
    verdict: ProofState
    points: tuple[Point, ...]

    @property
    def holds(self) -> bool:
        """Whether what the commit holds is proven."""
        return self.verdict in {ProofState.HOLDS, ProofState.TREE_ONLY}


async def verify(desk: "Desk", repository: str, name: str, *, run_gates: bool) -> Verified:
    """Look again whether everything that is kept about the commit *name* is true; *run_gates* runs its gates once more.

    Raises:
        NotFound: there is no such commit, or nothing is kept about it.
    """
    repositories = desk.world.repositories
    commit = await repositories.resolve(repository, name)
    if commit is None:
        raise NotFound(f"{repository} has no commit {name}", remedy="Give a commit or a branch of this repository.")
    tree = await repositories.tree(repository, commit)
    changes, receipts = await desk.world.store.read(
        lambda view: (list(view.changes.merged_as(commit)), list(view.changes.receipts_of(tree)))
    )
    if not changes and not receipts:
        raise NotFound(
            f"nothing is kept about {commit[:10]}: the merge queue of this store did not make it",
            remedy="`git log --first-parent` lists what it made: commits called `Merge ...` by Kapelle.",
        )
    points = [Point(holds=bool(receipts), what=f"a receipt is kept for its tree {tree[:10]}")]
    for receipt in receipts:
        points += _look_at(receipt)
    for change in changes:
        held = await repositories.is_ancestor(repository, change.head, commit)
        owner = await desk.world.store.read(lambda view, task_id=change.task_id: view.tasks.get(task_id))
        points.append(Point(holds=held, what=f"it holds the work of {owner.name if owner else change.task_id}"))
    if run_gates:
        points += await _again(desk, commit, changes)
    if not changes:
        # Without a change there is no run that says how the gate is run.
        points.append(Point(holds=None, what="it is no commit of the merge queue, and its gates are not run again"))
    return Verified(commit=commit, verdict=_verdict(points, changes, receipts), points=tuple(points))


def _verdict(points: Sequence[Point], changes: Sequence[Change], receipts: Sequence[Receipt]) -> ProofState:
    if any(point.holds is False for point in points):
        return ProofState.BROKEN
    if all(check.state is CheckState.NOT_RUN for receipt in receipts for check in receipt.checks):
        return ProofState.NO_GATE
    return ProofState.HOLDS if changes else ProofState.TREE_ONLY


def _look_at(receipt: Receipt) -> list[Point]:
    points: list[Point] = []
    for check in receipt.checks:
        if check.state is CheckState.NOT_RUN:
            continue
        name = f"{receipt.gate}/{check.name}"
        if check.required:
            points.append(Point(holds=check.state is CheckState.PASSED, what=f"{name} passed ({check.run})"))
        try:
            found = hashlib.sha256(Path(check.log_path).read_bytes()).hexdigest()
        except OSError:
            points.append(Point(holds=None, what=f"the log of {name} is gone"))
        else:
            points.append(Point(holds=found == check.log_hash, what=f"the log of {name} is as it was"))
    return points


async def _again(desk: "Desk", commit: str, changes: Sequence[Change]) -> list[Point]:
    # Loaded for this alone: whoever only looks at a queue needs nothing of the engine's.
    from kapelle.engine.verify import gate_again

    gates: dict[tuple[Gate, str], Run] = {}
    for change in changes:
        run, task = await desk.world.store.read(
            lambda view, change=change: (view.runs.get(change.run_id), view.tasks.get(change.task_id))
        )
        gate = run.spec.gate(task.spec.gate) if run is not None and task is not None else None
        if run is not None and gate is not None:
            gates.setdefault((gate, str(run.spec.workspace)), run)
    points: list[Point] = []
    for (gate, _), run in gates.items():
        try:
            verdict = await gate_again(desk.world, run, gate, commit)
        except KapelleError as error:
            points.append(Point(holds=False, what=f"{gate.name} could not be run again: {error.in_full}"))
            continue
        failing = f" ({verdict.failing.name} {verdict.failing.state})" if verdict.failing is not None else ""
        points.append(Point(holds=verdict.passed, what=f"{gate.name} passes when it is run again{failing}"))
    return points
