"""How attempts and tasks end, and what that means for those who need them: shared by all stages, inside their transactions."""

from collections import deque
from datetime import datetime

from kapelle.core import run as runs
from kapelle.core.attempt import COUNTS, TRIES_AGAIN_FREELY, Attempt, Outcome
from kapelle.core.errors import Defect
from kapelle.core.events import MOVED, AttemptEnded, RunEnded, TaskCompleted, TaskFailed, TaskMoved, TaskWaited
from kapelle.core.frozen import replace
from kapelle.core.merge import ChangeState, DeliveryMode
from kapelle.core.paths import after, name_of
from kapelle.core.retry import delay
from kapelle.core.run import Run, RunState
from kapelle.core.shapes import without_shapes
from kapelle.core.store import Tx, View
from kapelle.core.task import MEETS_A_NEED, TERMINAL, Failure, OnFailure, Task, TaskState, Wait, advance
from kapelle.engine.words import say_unheard


def run_of(tx: View, task: Task) -> Run:
    """Return the run of *task*.

    Raises:
        Defect: it is not in the store, which the store forbids.
    """
    run = tx.runs.get(task.run_id)
    if run is None:
        raise Defect(f"task {task.task_id} belongs to run {task.run_id}, which is not in the store")
    return run


def move(tx: Tx, task: Task, to: TaskState, *, note: str = "") -> Task:
    """Move *task* to a state that is not terminal, with its event; the caller may replace more and must not put it again."""
    moved = advance(task, to, tx.now)
    tx.tasks.put(moved)
    tx.log(moved_event(moved, task.state, note))
    return moved


def moved_event(task: Task, before: TaskState, note: str = "") -> TaskMoved:
    """Return the event that tells of a task's transition."""
    if task.state is TaskState.COMPLETED:
        return TaskCompleted(run_id=task.run_id, task_id=task.task_id, before=before, note=note, commit=task.commit)
    if task.state is TaskState.FAILED:
        return TaskFailed(run_id=task.run_id, task_id=task.task_id, before=before, note=note, failure=task.failure)
    return MOVED[task.state](run_id=task.run_id, task_id=task.task_id, before=before, note=note)


def wait(tx: Tx, task: Task, wait_for: Wait | None, detail: str = "", *, until: datetime | None = None) -> Task:
    """Write down what *task* waits for; an event only when that is something new."""
    detail = without_shapes(detail)
    if task.waits_for == wait_for and task.detail == detail and task.due_at == until:
        return task
    waiting = replace(task, waits_for=wait_for, detail=detail, due_at=until)
    tx.tasks.put(waiting)
    if task.waits_for != wait_for:
        tx.log(TaskWaited(run_id=task.run_id, task_id=task.task_id, waits_for=wait_for, detail=detail))
    return waiting


def finish(tx: Tx, task: Task, to: TaskState, *, failure: Failure | None = None, note: str = "") -> None:
    """Move *task* to a terminal state; let those go on whose needs are met by it, and fail those whose cannot be."""
    todo: deque[tuple[Task, TaskState, Failure | None, str]] = deque([(task, to, failure, note)])
    while todo:
        ending, state, why, remark = todo.popleft()
        fresh = tx.tasks.get(ending.task_id) if ending is not task else ending
        if fresh is None or fresh.state in TERMINAL:
            continue
        ended = replace(advance(fresh, state, tx.now), failure=why)
        tx.tasks.put(ended)
        say_unheard(tx, ended)
        tx.log(moved_event(ended, fresh.state, remark))
        run = run_of(tx, ended)
        _withdraw(tx, ended)
        if state is TaskState.COMPLETED:
            _remember(tx, ended, run.spec.project)
        tx.runs.put(replace(run, unfinished=run.unfinished - 1))
        met = state in MEETS_A_NEED or (state is TaskState.FAILED and ended.spec.on_failure is OnFailure.CONTINUE)
        for other in tx.tasks.needed_by(ended.task_id):
            if other.state in TERMINAL:
                continue
            if met:
                _met(tx, other)
            else:
                reason = (
                    f"it needs {ended.name}, which was {state.value}"
                    if state is not TaskState.FAILED
                    else (f"it needs {ended.name}, which failed")
                )
                todo.append((other, TaskState.FAILED, Failure(kind="need_failed", message=reason), ""))


def _met(tx: Tx, task: Task) -> None:
    unmet = max(task.unmet - 1, 0)
    waits = begins_after(replace(task, unmet=unmet))
    tx.tasks.put(replace(task, unmet=unmet, waits_for=waits))
    if waits is not task.waits_for:
        tx.log(TaskWaited(run_id=task.run_id, task_id=task.task_id, waits_for=waits))


def begins_after(task: Task) -> Wait | None:
    """Return what a task that has no attempt waits for, other than its turn."""
    if task.unmet:
        return Wait.NEEDS
    if task.spec.approval and not task.approved:
        return Wait.APPROVAL
    return Wait.PAUSED if task.paused else None


def _withdraw(tx: Tx, task: Task) -> None:
    """End what a terminal task still has open: its attempt, its change in the queue."""
    if task.attempt_id is not None:
        attempt = tx.attempts.get(task.attempt_id)
        if attempt is not None and attempt.ended_at is None:
            outcome = {
                TaskState.COMPLETED: Outcome.SUCCEEDED,
                TaskState.CANCELLED: Outcome.CANCELLED,
                TaskState.REJECTED: Outcome.REJECTED,
            }.get(task.state, Outcome.CANCELLED)
            close(tx, attempt, outcome)
    if task.state is not TaskState.COMPLETED:
        for change in tx.changes.of_task(task.task_id):
            if change.state is ChangeState.QUEUED:
                tx.changes.put(replace(change, state=ChangeState.WITHDRAWN, ended_at=tx.now))


def _remember(tx: Tx, task: Task, project: str) -> None:
    """Write down how long a task took that is completed: the attempt that was accepted, from its start to what was merged."""
    attempt = tx.attempts.get(task.attempt_id) if task.attempt_id is not None else None
    # What takes no time has no agent, and there is nothing to learn from it.
    if attempt is not None and attempt.started_at < tx.now:
        before = tx.history.alike(project, name_of(task.spec), attempt.config)
        tx.history.put(after(before, project, task.spec, attempt.config, tx.now - attempt.started_at))


def close(tx: Tx, attempt: Attempt, outcome: Outcome, message: str = "") -> None:
    """End *attempt*; its agent and workspace are given back by the stages that own them."""
    tx.attempts.put(replace(attempt, ended_at=tx.now, outcome=outcome))
    tx.log(
        AttemptEnded(
            run_id=attempt.run_id,
            task_id=attempt.task_id,
            attempt_id=attempt.attempt_id,
            outcome=outcome.value,
            message=message,
        )
    )


def give_up_attempt(
    tx: Tx, task: Task, attempt: Attempt, outcome: Outcome, message: str, *, chance: float, for_good: bool = False
) -> None:
    """End *attempt* without success: the task tries again later, or fails when it has no attempt left.

    *chance* is a random number in [0, 1) for the jitter of the delay. *for_good*: it fails, whatever is left.
    """
    message = without_shapes(message)
    close(tx, attempt, outcome, message)
    counted = task.attempts if outcome in COUNTS else task.attempts - 1
    again = outcome in TRIES_AGAIN_FREELY or (outcome in COUNTS and counted < task.spec.max_attempts)
    if for_good or not again:
        failure = Failure(kind=outcome.value, message=message)
        finish(tx, replace(task, attempts=max(counted, 0)), TaskState.FAILED, failure=failure)
        return
    due_at = tx.now + delay(task.spec.retry, max(counted, 1), chance)
    moved = advance(task, TaskState.PENDING, tx.now)
    waiting = replace(
        moved,
        attempts=max(counted, 0),
        due_at=due_at,
        waits_for=Wait.PAUSED if task.paused else Wait.RETRY,
        detail=message,
        attempt_id=None,
        round=0,
    )
    tx.tasks.put(waiting)
    tx.log(moved_event(waiting, task.state, f"{outcome.value}: {message}"))


def end_run(tx: Tx, run: Run, *, cancelled: bool = False) -> None:
    """End *run*, whose tasks have all ended; *cancelled* when a person gave up its delivery."""
    counts = dict(tx.runs.overviews([run.run_id])[0].counts)
    completed = counts.get(TaskState.COMPLETED, 0)
    failed = counts.get(TaskState.FAILED, 0) + counts.get(TaskState.REJECTED, 0)
    cancelled = cancelled or bool(counts.get(TaskState.CANCELLED, 0))
    state = RunState.CANCELLED if cancelled else RunState.FAILED if failed else RunState.COMPLETED
    tx.runs.put(runs.move(run, state, tx.now))
    other = sum(counts.values()) - completed - failed
    tx.log(RunEnded(run_id=run.run_id, state=state.value, completed=completed, failed=failed, other=other))


def end_runs(tx: Tx) -> int:
    """End every run whose tasks have all ended and whose work is where it should be; return how many runs moved."""
    changed = 0
    for run in tx.runs.done():
        if run.state is RunState.RUNNING:
            tx.runs.put(runs.move(run, RunState.DELIVERING, tx.now))
            changed += 1
        if not _to_deliver(tx, run):
            end_run(tx, run)
            changed += 1
    return changed


def _to_deliver(tx: Tx, run: Run) -> bool:
    """Say whether the run still has work on its way to the target; while it is held up the run stays open."""
    if run.spec.delivery is DeliveryMode.NEVER or run.spec.repository is None or run.spec.target is None:
        return False
    integration = tx.changes.integration(run.spec.repository, run.spec.target, run.line)
    return integration is not None and integration.tip != integration.delivered
