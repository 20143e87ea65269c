"""What a run must be to be accepted, whoever asks: doors check more and tell it better, but any process may ask."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta

from kapelle.core.limits import LONGEST_CONDITION, LONGEST_INPUTS, LONGEST_PROMPT, LONGEST_RESULT, MOST_TASKS
from kapelle.core.names import branch_problem, name_problem
from kapelle.core.run import RunSpec
from kapelle.core.task import TaskSpec

LONGEST_TIME = timedelta(days=366)
"""No time limit and no delay is longer."""


def spec_problem(spec: RunSpec) -> str:
    """Return the first reason why *spec* cannot be accepted, or nothing."""
    return next(_problems(spec), "")


def _problems(spec: RunSpec) -> Iterator[str]:
    if problem := name_problem(spec.name):
        yield f"the name of the run {problem}"
    if len(spec.tasks) > MOST_TASKS:
        yield f"the run has {len(spec.tasks)} tasks; {MOST_TASKS} are the most"
    if spec.target is not None and (problem := branch_problem(spec.target)):
        yield f"the target {problem}"
    if not isinstance(_json(spec.inputs, LONGEST_INPUTS), dict):
        yield "the inputs of the run are no JSON object, or too long"
    for gate in spec.gates:
        for check in gate.checks:
            yield from _text(f"the check {check.name!r} of the gate {gate.name!r}", check.run, LONGEST_PROMPT)
            yield from _time(f"the time limit of the check {check.name!r}", check.timeout)
    names = {task.name for task in spec.tasks}
    if len(names) < len(spec.tasks):
        yield "two tasks of the run have the same name"
    configs, gates = {config.name for config in spec.configs}, {gate.name for gate in spec.gates}
    for task in spec.tasks:
        yield from _task(task, names, configs, gates)
    if stuck := _in_circles(spec.tasks):
        yield f"{', '.join(stuck[:5])} need each other in a circle: none of them could ever start"


def _in_circles(tasks: Sequence[TaskSpec]) -> list[str]:
    """Return the tasks that could never start, for what they need never ends."""
    missing = {task.name: len(set(task.needs)) for task in tasks}
    needed_by: dict[str, list[str]] = {}
    for task in tasks:
        for need in set(task.needs):
            needed_by.setdefault(need, []).append(task.name)
    ready = [name for name, count in missing.items() if not count]
    while ready:
        name = ready.pop()
        del missing[name]
        for other in needed_by.get(name, ()):
            missing[other] -= 1
            if not missing[other]:
                ready.append(other)
    return list(missing)


def _task(task: TaskSpec, names: set[str], configs: set[str], gates: set[str]) -> Iterator[str]:
    if problem := name_problem(task.name):
        yield f"the name of a task {problem}"
    what = f"task {task.name}"
    for name in task.choices:
        if name not in configs:
            yield f"{what} names the agent {name!r}, which the run does not have"
    if task.gate is not None and task.gate not in gates:
        yield f"{what} names the gate {task.gate!r}, which the run does not have"
    for need in task.needs:
        if need not in names:
            yield f"{what} needs {need!r}, which is no task of the run"
    yield from _text(f"the prompt of {what}", task.prompt, LONGEST_PROMPT)
    yield from _text(f"the when of {what}", task.when or "", LONGEST_CONDITION)
    yield from _time(f"the time limit of {what}", task.timeout)
    yield from _time(f"the longest delay of {what}", task.retry.maximum)
    yield from _time(f"the first delay of {what}", task.retry.initial)
    if not 0 < task.max_attempts <= MOST_ATTEMPTS:
        yield f"{what} may not be tried {task.max_attempts} times"
    if task.result_schema is not None and not isinstance(_json(task.result_schema, LONGEST_RESULT), dict):
        yield f"the schema of the result of {what} is no JSON, or too long"
    if task.item is not None and _json(task.item, LONGEST_INPUTS) is _NONE:
        yield f"the item of {what} is no JSON, or too long"


MOST_ATTEMPTS = 100
_NONE = object()


def _json(text: str, longest: int) -> object:
    if len(text) > longest:
        return _NONE
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NONE


def _text(what: str, text: str, longest: int) -> Iterator[str]:
    if len(text) > longest:
        yield f"{what} has {len(text)} characters; {longest} are the most"
    if "\0" in text:
        yield f"{what} holds a NUL"


def _time(what: str, time: timedelta) -> Iterator[str]:
    if not timedelta(0) <= time <= LONGEST_TIME:
        yield f"{what} cannot be {time}"
