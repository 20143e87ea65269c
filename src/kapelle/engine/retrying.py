"""Which tasks of a run are tried again: what was not completed, neither by the run itself nor by any retry of it."""

from collections.abc import Sequence

from kapelle.core.ids import RunId, TaskId
from kapelle.core.store import Tx
from kapelle.core.task import TERMINAL, OnFailure, Task, TaskState

ENDED_WITHOUT = frozenset({TaskState.FAILED, TaskState.CANCELLED, TaskState.REJECTED})
"""States in which a task has ended without having been done."""


class Standings:
    """How tasks stand that were tried again, by whichever run: a retry is a task of its own, which names the one before it."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._family: dict[TaskId, list[Task]] = {}
        """All tries of one thing, by the id of each of them."""

    def of(self, task: Task) -> Task:
        """Return the try that says how *task* stands: one that did it, or that is still going on; otherwise itself."""
        if task.state not in ENDED_WITHOUT:
            return task
        if task.task_id not in self._family:
            self._learn(self._first(task).run_id)
        tries = self._family.get(task.task_id, [task])
        done = [each for each in tries if each.state not in ENDED_WITHOUT and each.state in TERMINAL]
        going_on = [each for each in tries if each.state not in TERMINAL]
        return next(reversed(done or going_on), task)

    def _first(self, task: Task) -> Task:
        before = self._tx.tasks.get(task.retry_of) if task.retry_of is not None else None
        while before is not None:
            task, before = before, self._tx.tasks.get(before.retry_of) if before.retry_of is not None else None
        return task

    def _learn(self, run_id: RunId) -> None:
        """Find every try of what the run began with."""
        for task in self._tx.tasks.of_run(run_id):
            self._family.setdefault(task.task_id, [task])
        todo = [run_id]
        while todo:
            for again in self._tx.tasks.retries_of(todo.pop(0)):
                tries = self._family.get(again.retry_of) if again.retry_of is not None else None
                if tries is None or again.task_id in self._family:
                    continue
                tries.append(again)
                self._family[again.task_id] = tries
                if again.run_id not in todo:
                    todo.append(again.run_id)


def to_retry(tx: Tx, tasks: Sequence[Task], only: TaskId | None, standings: Standings) -> list[Task]:
    """Return what is tried again: what ended and was not completed since, or *only* and whatever failed for want of it.

    What these need comes with them where it stands in their way: they could not start otherwise.
    """
    again = [task for task in tasks if standings.of(task).state in ENDED_WITHOUT]
    wanted = {task.task_id for task in again} if only is None else {only}
    grew = True
    while grew:
        grew = False
        for task in again:
            if task.task_id not in wanted and any(need.task_id in wanted for need in tx.tasks.needs(task.task_id)):
                wanted.add(task.task_id)
                grew = True
    chosen = {task.task_id: task for task in again if task.task_id in wanted}
    todo = list(chosen.values())
    while todo:
        for need in tx.tasks.needs(todo.pop().task_id):
            may_fail = need.state is TaskState.FAILED and need.spec.on_failure is OnFailure.CONTINUE
            undone = standings.of(need).state in ENDED_WITHOUT
            if need.task_id not in chosen and undone and not may_fail:
                chosen[need.task_id] = need
                todo.append(need)
    place = {task.task_id: position for position, task in enumerate(tasks)}
    return sorted(chosen.values(), key=lambda task: place.get(task.task_id, -1))
