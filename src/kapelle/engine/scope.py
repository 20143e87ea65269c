"""What a task's templates see, read from the store."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kapelle.core.run import RunSpec
from kapelle.core.store import View
from kapelle.core.task import Task
from kapelle.core.template import NeedView, Scope


def scope_of(view: View, run: RunSpec, task: Task) -> Scope:
    """Return the scope for the templates of *task*: everything that it needs, at any distance, has ended."""
    found: dict[str, list[Task]] = {}
    seen: set[str] = set()
    todo = list(view.tasks.needs(task.task_id))
    while todo:
        need = todo.pop()
        if need.task_id in seen:
            continue
        seen.add(need.task_id)
        found.setdefault(need.spec.origin or need.name, []).append(need)
        todo.extend(view.tasks.needs(need.task_id))
    return Scope(
        inputs=json.loads(run.inputs),
        tasks={name: _views(run, name, tasks) for name, tasks in found.items()},
        run=run.name,
        task=task.name,
        item=None if task.spec.item is None else json.loads(task.spec.item),
    )


def _views(run: RunSpec, name: str, tasks: Sequence[Task]) -> NeedView | Sequence[NeedView]:
    if len(tasks) == 1 and tasks[0].spec.origin is None:
        return _view(tasks[0])
    position: Mapping[str, int] = {spec.name: index for index, spec in enumerate(run.tasks)}
    ordered = sorted(tasks, key=lambda task: position.get(task.name, 0))
    return [_view(task) for task in ordered if task.spec.origin == name]


def _view(task: Task) -> NeedView:
    item: Any = None if task.spec.item is None else json.loads(task.spec.item)
    return NeedView(
        name=task.name,
        state=task.state.value,
        summary=task.summary,
        result=None if task.result is None else json.loads(task.result),
        commit=task.commit,
        failure=task.failure.message if task.failure is not None else "",
        item=item,
    )
