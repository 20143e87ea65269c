"""From a workflow to the tasks of a run: foreach made several, phases made needs."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.task import TaskSpec
from kapelle.core.workflow import WorkflowTask, ancestors, expand, label

quick = settings(max_examples=60, deadline=None)


def _task(name: str, *needs: str, foreach: tuple[str, ...] | None = None, phase: str | None = None) -> WorkflowTask:
    return WorkflowTask(spec=TaskSpec(name=name, needs=needs, phase=phase, prompt=f"do {name}"), foreach=foreach)


def _needs(tasks: list[WorkflowTask], phases: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    return {spec.name: spec.needs for spec in expand(tasks, phases)}


def test_tasks_stay_as_they_are_without_foreach_and_phases() -> None:
    tasks = [_task("b", "a"), _task("a")]
    assert expand(tasks, ()) == (tasks[0].spec, tasks[1].spec)


def test_foreach_makes_one_task_for_each_item() -> None:
    one, two = expand([_task("part", foreach=('"a"', '{"path": "x"}'))], ())
    assert (one.name, one.item, one.origin) == ("part[a]", '"a"', "part")
    assert (two.name, two.item, two.origin) == ('part[{"path":"x"}]', '{"path": "x"}', "part")
    assert one.prompt == two.prompt == "do part"


def test_who_needs_a_task_of_foreach_needs_all_of_them() -> None:
    tasks = [_task("part", "plan", foreach=('"a"', '"b"')), _task("plan"), _task("join", "part")]
    assert _needs(tasks) == {
        "part[a]": ("plan",),
        "part[b]": ("plan",),
        "plan": (),
        "join": ("part[a]", "part[b]"),
    }


def test_foreach_on_both_sides_needs_each_of_each() -> None:
    tasks = [_task("a", foreach=("1", "2")), _task("b", "a", foreach=("1", "2"))]
    assert _needs(tasks)["b[1]"] == ("a[1]", "a[2]")


def test_a_phase_needs_the_one_before() -> None:
    tasks = [_task("t", phase="test"), _task("x", phase="build"), _task("y", phase="build"), _task("free")]
    assert _needs(tasks, ("build", "test")) == {"t": ("x", "y"), "x": (), "y": (), "free": ()}


def test_a_phase_without_tasks_does_not_part_those_round_it() -> None:
    tasks = [_task("first", phase="one"), _task("last", phase="three")]
    assert _needs(tasks, ("one", "two", "three"))["last"] == ("first",)


def test_a_need_that_the_phase_gives_too_is_there_once() -> None:
    tasks = [_task("a", phase="one"), _task("b", "a", phase="two")]
    assert _needs(tasks, ("one", "two"))["b"] == ("a",)


def test_a_phase_of_foreach_tasks_is_needed_item_by_item() -> None:
    tasks = [_task("part", foreach=('"a"', '"b"'), phase="one"), _task("end", phase="two")]
    assert _needs(tasks, ("one", "two"))["end"] == ("part[a]", "part[b]")


@pytest.mark.parametrize(
    ("item", "expected"), [('"src/a.py"', "src/a.py"), ("3", "3"), ("true", "true"), ('{"b": 1, "a": [2]}', '{"a":[2],"b":1}')]
)
def test_an_item_is_called_by_its_text_or_its_json(item: str, expected: str) -> None:
    assert label(item) == expected


def test_ancestors_are_needs_at_any_distance_and_never_strangers() -> None:
    specs = {
        name: TaskSpec(name=name, needs=needs) for name, needs in {"a": (), "b": ("a", "gone"), "c": ("b",), "d": ()}.items()
    }
    assert ancestors("c", specs) == {"a", "b"}
    assert ancestors("d", specs) == frozenset()


PHASES = ("one", "two", "three")


@st.composite
def _workflows(draw: st.DrawFn) -> list[WorkflowTask]:
    """Workflows without mistakes: needs go to tasks before, phases never go back."""
    phases = sorted(draw(st.lists(st.sampled_from(range(4)), min_size=1, max_size=7)))
    tasks: list[WorkflowTask] = []
    for number, phase in enumerate(phases):
        needs = draw(st.lists(st.sampled_from([f"t{other}" for other in range(number)]), max_size=3)) if number else []
        items = draw(st.none() | st.lists(st.integers(0, 9).map(json.dumps), min_size=1, max_size=3, unique=True).map(tuple))
        tasks.append(_task(f"t{number}", *needs, foreach=items, phase=None if phase == 3 else PHASES[phase]))
    return tasks


@quick
@given(tasks=_workflows())
def test_every_need_of_a_run_is_one_of_its_tasks_and_names_are_unique(tasks: list[WorkflowTask]) -> None:
    specs = expand(tasks, PHASES)
    names = [spec.name for spec in specs]
    assert len(set(names)) == len(names) == sum(len(task.foreach or "x") for task in tasks)
    assert {need for spec in specs for need in spec.needs} <= set(names)
    assert all(len(set(spec.needs)) == len(spec.needs) for spec in specs)


@quick
@given(tasks=_workflows())
def test_every_need_that_was_written_holds_between_all_that_came_of_both(tasks: list[WorkflowTask]) -> None:
    specs = expand(tasks, PHASES)
    written = {task.spec.name: task.spec.needs for task in tasks}
    for spec in specs:
        wanted = {other.name for other in specs if (other.origin or other.name) in written[spec.origin or spec.name]}
        assert wanted <= set(spec.needs)


@quick
@given(tasks=_workflows())
def test_a_task_of_a_phase_comes_after_every_task_of_the_phases_before(tasks: list[WorkflowTask]) -> None:
    by_name = {spec.name: spec for spec in expand(tasks, PHASES)}
    for spec in by_name.values():
        before = () if spec.phase is None else PHASES[: PHASES.index(spec.phase)]
        assert {other.name for other in by_name.values() if other.phase in before} <= ancestors(spec.name, by_name)
