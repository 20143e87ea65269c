"""How long tasks will probably take, and the critical path behind each: itself, and the longest chain of those that need it."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from kapelle.core.frozen import frozen
from kapelle.core.task import TaskSpec

ASSUMED = timedelta(minutes=5)
"""How long a task takes of which nothing is known: so the longer of two chains is the one with more tasks."""
NEWEST = 0.3
"""How much the newest time counts against all before it."""


@frozen
class Took:
    """How long similar tasks took: those of one project that are called the same and were done by the same agent config."""

    project: str
    name: str
    """The name of the task; of one that ``foreach`` made several of, the name in the file."""
    config: str
    seconds: float
    """On average, the newer the more."""
    times: int = 1


def name_of(spec: TaskSpec) -> str:
    """Return what *spec* and all that are similar to it are called."""
    return spec.origin or spec.name


def after(before: Took | None, project: str, spec: TaskSpec, config: str, took: timedelta) -> Took:
    """Return what is known after one more similar task took *took*."""
    seconds, times = max(took.total_seconds(), 0.0), 1
    if before is not None:
        seconds, times = before.seconds + NEWEST * (seconds - before.seconds), before.times + 1
    return Took(project=project, name=name_of(spec), config=config, seconds=seconds, times=times)


def likely(spec: TaskSpec, known: Mapping[tuple[str, str], Took]) -> timedelta:
    """Return how long *spec* will probably take: as similar tasks did, or else as it was estimated."""
    for config in spec.choices:
        found = known.get((name_of(spec), config))
        if found is not None:
            return timedelta(seconds=found.seconds)
    return spec.estimate if spec.estimate is not None else ASSUMED


def critical_paths(tasks: Sequence[TaskSpec], known: Mapping[tuple[str, str], Took]) -> dict[str, timedelta]:
    """Return the critical path of each of *tasks*, which need each other in no circle."""
    needed_by: dict[str, list[str]] = {task.name: [] for task in tasks}
    left = {task.name: 0 for task in tasks}
    for task in tasks:
        for need in set(task.needs):
            if need in needed_by:
                needed_by[need].append(task.name)
                left[need] += 1
    by_name = {task.name: task for task in tasks}
    paths: dict[str, timedelta] = {}
    ready = [name for name, count in left.items() if not count]
    while ready:
        task = by_name[ready.pop()]
        behind = max((paths[other] for other in needed_by[task.name]), default=timedelta(0))
        paths[task.name] = likely(task, known) + behind
        for need in set(task.needs):
            if need in left:
                left[need] -= 1
                if not left[need]:
                    ready.append(need)
    return paths
