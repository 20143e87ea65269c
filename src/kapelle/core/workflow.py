"""Workflows: a DAG of tasks as written, the mistakes in it, and the tasks that come of it."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from kapelle.core.errors import Mistake, TemplateFailed, closest
from kapelle.core.frozen import frozen, replace
from kapelle.core.limits import LONGEST_CONDITION, LONGEST_PROMPT
from kapelle.core.names import name_problem
from kapelle.core.references import references
from kapelle.core.task import TaskSpec, WorkspaceKind
from kapelle.core.template import NEED_FIELDS, References

LONGEST_TASK_NAME = 64
NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,{LONGEST_TASK_NAME - 1}}}")


@frozen
class WorkflowTask:
    """A task of a workflow file, before ``foreach`` made several of it."""

    spec: TaskSpec
    foreach: tuple[str, ...] | None = None
    """The items, each as JSON text."""


@frozen
class Surroundings:
    """What a workflow may name that is not in its file."""

    agents: frozenset[str]
    gates: frozenset[str]
    phases: tuple[str, ...]
    inputs: frozenset[str]
    in_repository: bool
    several: frozenset[str] = frozenset()
    """Tasks that ``foreach`` makes several of."""


NO_AGENTS = "no agent is configured yet: `kapelle init` writes a beginning"
NO_GATES = "no gate is configured yet; add it to gates in agents.yml"


def mistakes(tasks: Sequence[WorkflowTask], around: Surroundings) -> list[Mistake]:
    """Return every mistake in *tasks*, each with its path in the document (``("tasks", NAME, ...)``)."""
    by_name = {task.spec.name: task.spec for task in tasks}
    found: list[Mistake] = []
    for task in tasks:
        found += _names(task.spec, by_name, around)
        found += _sense(task, around)
        found += _templates(task, by_name, around)
    # Phases are needs too, once the run is made: a task that needs one of a later phase would never start.
    found += _cycles(by_name, {}) or _cycles(by_name, _phase_needs(by_name, around.phases))
    return found


def _names(spec: TaskSpec, by_name: Mapping[str, TaskSpec], around: Surroundings) -> list[Mistake]:
    here = ("tasks", spec.name)
    found: list[Mistake] = []
    if not NAME.fullmatch(spec.name):
        advice = f"letters, digits, - and _, beginning with a letter, at most {LONGEST_TASK_NAME}"
        found.append(Mistake(message=f"{spec.name!r} is no name for a task", advice=advice, path=here))
    for index, need in enumerate(spec.needs):
        if need not in by_name:
            advice = closest(need, (name for name in by_name if name != spec.name))
            path = (*here, "needs", index)
            found.append(Mistake(message=f"{spec.name} needs {need}, which is no task here", advice=advice, path=path))
    for name in spec.choices:
        if name in around.agents:
            continue
        message = f"there is no agent {name}" if name else f"{spec.name} names no agent"
        found.append(Mistake(message=message, advice=closest(name, around.agents, NO_AGENTS), path=(*here, "agent")))
    if spec.gate is not None and spec.gate not in around.gates:
        advice = closest(spec.gate, around.gates, NO_GATES)
        found.append(Mistake(message=f"there is no gate {spec.gate}", advice=advice, path=(*here, "gate")))
    if spec.phase is not None and spec.phase not in around.phases:
        advice = closest(spec.phase, around.phases) + "; phases are listed in project.yml or in the workflow"
        found.append(Mistake(message=f"there is no phase {spec.phase}", advice=advice, path=(*here, "phase")))
    return found


def _sense(task: WorkflowTask, around: Surroundings) -> list[Mistake]:
    spec, here, found = task.spec, ("tasks", task.spec.name), list[Mistake]()
    if not spec.prompt.strip():
        found.append(Mistake(message=f"{spec.name} has no prompt", advice="say what is to be done", path=(*here, "prompt")))
    if len(spec.prompt) > LONGEST_PROMPT:
        message = f"the prompt of {spec.name} has {len(spec.prompt)} characters; {LONGEST_PROMPT} are the most"
        advice = "put the text into a file of the repository, and name it in the prompt"
        found.append(Mistake(message=message, advice=advice, path=(*here, "prompt")))
    if len(spec.when or "") > LONGEST_CONDITION:
        message = f"the when of {spec.name} has {len(spec.when or '')} characters; {LONGEST_CONDITION} are the most"
        found.append(Mistake(message=message, advice="make it shorter", path=(*here, "when")))
    for item in task.foreach or ():
        if problem := name_problem(f"{spec.name}[{label(item)}]"):
            message = f"foreach of {spec.name}: the name that an item gives its task {problem}"
            advice = "give short items, in one line; what is longer may stand in an input"
            found.append(Mistake(message=message[:500], advice=advice, path=(*here, "foreach")))
            break
    if spec.workspace is WorkspaceKind.WORKTREE and not around.in_repository:
        advice = "run it inside a git repository, or write workspace: scratch (or path)"
        found.append(Mistake(message=f"{spec.name} works in a worktree, and this is no repository", advice=advice, path=here))
    if spec.workspace is WorkspaceKind.PATH and not spec.path:
        found.append(Mistake(message=f"{spec.name} names no path", advice="add path: DIRECTORY", path=(*here, "path")))
    if task.foreach is not None and not task.foreach:
        found.append(
            Mistake(message=f"foreach of {spec.name} is empty", advice="list at least one item", path=(*here, "foreach"))
        )
    if task.foreach is not None and len({label(item) for item in task.foreach}) < len(task.foreach):
        found.append(
            Mistake(
                message=f"foreach of {spec.name} names an item twice",
                advice="remove one of them",
                path=(*here, "foreach"),
            )
        )
    return found


def _templates(task: WorkflowTask, by_name: Mapping[str, TaskSpec], around: Surroundings) -> list[Mistake]:
    spec, found = task.spec, list[Mistake]()
    reachable = ancestors(spec.name, by_name)
    texts = [("prompt", spec.prompt, False)]
    if spec.when is not None:
        texts.append(("when", spec.when, True))
    for key, text, is_expression in texts:
        if len(text) > (LONGEST_CONDITION if is_expression else LONGEST_PROMPT):
            continue
        path = ("tasks", spec.name, key)
        try:
            named = references(text, expression=is_expression)
        except TemplateFailed as error:
            advice = "see the Jinja2 syntax; a literal {{ is written {{ '{{' }}"
            found.append(Mistake(message=f"the {key} of {spec.name} is no template: {error}", advice=advice, path=path))
            continue
        found += _named(named, key, task, reachable, by_name, around)
    return found


def _named(
    named: References,
    key: str,
    task: WorkflowTask,
    reachable: frozenset[str],
    by_name: Mapping[str, TaskSpec],
    around: Surroundings,
) -> list[Mistake]:
    name = task.spec.name
    path = ("tasks", name, key)
    found: list[Mistake] = []
    for other in named.tasks:
        if other in reachable:
            continue
        message = f"the {key} of {name} uses tasks.{other}, which is not among its needs"
        advice = f"add {other} to needs of {name}" if other in by_name else closest(other, reachable)
        found.append(Mistake(message=message, advice=advice, path=path))
    for given in named.inputs:
        if given not in around.inputs:
            message = f"the {key} of {name} uses inputs.{given}, which is no input"
            found.append(Mistake(message=message, advice=closest(given, around.inputs, "declare it under inputs"), path=path))
    found += _fields(named, key, task, by_name, around)
    for word in named.unknown:
        message = f"the {key} of {name} uses {word}, which no template sees"
        advice = "templates see inputs, tasks, item, run and task"
        found.append(Mistake(message=message, advice=advice, path=path))
    return found


def _fields(
    named: References, key: str, task: WorkflowTask, by_name: Mapping[str, TaskSpec], around: Surroundings
) -> list[Mistake]:
    """Return what is asked of a task, or of an item, that is not there."""
    name = task.spec.name
    path = ("tasks", name, key)
    found: list[Mistake] = []
    for other, field in named.fields:
        if other in around.several:
            message = f"the {key} of {name} uses tasks.{other}.{field}, but {other} is made several by foreach"
            advice = f"go through them: {{% for each in tasks.{other} %}}{{{{ each.{field} }}}}{{% endfor %}}"
            found.append(Mistake(message=message, advice=advice, path=path))
        elif other in by_name and field not in NEED_FIELDS:
            message = f"the {key} of {name} uses tasks.{other}.{field}, which a task does not have"
            found.append(Mistake(message=message, advice=closest(field, NEED_FIELDS), path=path))
    if named.item and task.foreach is None:
        message = f"the {key} of {name} uses item, and {name} has no foreach"
        found.append(Mistake(message=message, advice="add foreach: [...], or leave item out", path=path))
    return found


def ancestors(name: str, by_name: Mapping[str, TaskSpec]) -> frozenset[str]:
    """Return the names of all tasks that *name* needs, at any distance."""
    seen: set[str] = set()
    todo = [need for need in by_name[name].needs if need in by_name]
    while todo:
        need = todo.pop()
        if need in seen:
            continue
        seen.add(need)
        todo.extend(other for other in by_name[need].needs if other in by_name)
    return frozenset(seen)


def _phase_needs(by_name: Mapping[str, TaskSpec], phases: Sequence[str]) -> dict[str, Sequence[str]]:
    by_phase = {phase: [name for name, spec in by_name.items() if spec.phase == phase] for phase in phases}
    return {name: _earlier(spec.phase, phases, by_phase) for name, spec in by_name.items() if spec.phase in by_phase}


def _cycles(by_name: Mapping[str, TaskSpec], more: Mapping[str, Sequence[str]]) -> list[Mistake]:
    """Return every circle of the needs as written and *more* that come of phases."""
    needs = {name: [*spec.needs, *more.get(name, ())] for name, spec in by_name.items()}
    found: list[Mistake] = []
    done: set[str] = set()
    for start in by_name:
        while start not in done:
            cycle = _cycle_from(start, needs, done)
            if not cycle:
                continue
            # Phases alone make no circle: at least one of its needs was written by somebody.
            who, what = next(pair for pair in pairwise(cycle) if pair[1] in by_name[pair[0]].needs)
            note = ", since phases go in order" if more else ""
            message = f"{' -> '.join(cycle)} is a circle: none of them could ever start{note}"
            advice = f"remove one of these needs, for example {what} from {who}"
            found.append(Mistake(message=message, advice=advice, path=("tasks", who, "needs")))
    return found


def _cycle_from(start: str, needs: Mapping[str, Sequence[str]], done: set[str]) -> list[str]:
    """Walk the needs of *start* depth first, without recursion; return the first circle as a path, or nothing."""
    path: list[str] = [start]
    rest: list[list[str]] = [list(needs[start])]
    while path:
        if not rest[-1]:
            done.add(path.pop())
            rest.pop()
            continue
        need = rest[-1].pop(0)
        if need in path:
            cycle = path[path.index(need) :]
            done.update(cycle)
            return [*cycle, need]
        if need in needs and need not in done:
            path.append(need)
            rest.append(list(needs[need]))
    return []


def expand(tasks: Sequence[WorkflowTask], phases: Sequence[str]) -> tuple[TaskSpec, ...]:
    """Return the tasks of a run: each ``foreach`` made several, phases made needs.

    A task of ``foreach`` is called ``NAME[item]``; who needs NAME needs all of them. A task of a phase also needs every task
    of the phase before it that has any, since a phase starts when the one before is completed.
    """
    made: dict[str, list[TaskSpec]] = {}
    for task in tasks:
        made[task.spec.name] = _one_for_each(task)
    by_phase = {phase: [spec.name for specs in made.values() for spec in specs if spec.phase == phase] for phase in phases}
    result: list[TaskSpec] = []
    for specs in made.values():
        for spec in specs:
            needs = [name for need in spec.needs for name in (other.name for other in made[need])]
            needs += _earlier(spec.phase, phases, by_phase)
            result.append(replace(spec, needs=tuple(dict.fromkeys(needs))))
    return tuple(result)


def _earlier(phase: str | None, phases: Sequence[str], by_phase: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if phase is None:
        return ()
    for earlier in reversed(phases[: list(phases).index(phase)]):
        if by_phase[earlier]:
            return by_phase[earlier]
    return ()


def _one_for_each(task: WorkflowTask) -> list[TaskSpec]:
    if task.foreach is None:
        return [task.spec]
    return [
        replace(task.spec, name=f"{task.spec.name}[{label(item)}]", item=item, origin=task.spec.name) for item in task.foreach
    ]


def label(item: str) -> str:
    """Return what a ``foreach`` item (JSON text) is called in the name of its task."""
    value = json.loads(item)
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
