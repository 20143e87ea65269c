"""Circles among needs and phases: found and told with their path, since what is in one never starts."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.errors import Mistake
from kapelle.core.task import TaskSpec
from kapelle.core.workflow import Surroundings, WorkflowTask, ancestors, expand, mistakes

quick = settings(max_examples=100, deadline=None)
PHASES = ("one", "two", "three")
AROUND = Surroundings(agents=frozenset({"dev"}), gates=frozenset(), phases=PHASES, inputs=frozenset(), in_repository=True)


def _tasks(needs: Mapping[str, Sequence[str]], phases: Mapping[str, str] | None = None) -> list[WorkflowTask]:
    return [
        WorkflowTask(spec=TaskSpec(name=name, prompt="x", agent="dev", needs=tuple(its), phase=(phases or {}).get(name)))
        for name, its in needs.items()
    ]


def _circles(needs: Mapping[str, Sequence[str]], phases: Mapping[str, str] | None = None) -> list[Mistake]:
    return mistakes(_tasks(needs, phases), AROUND)


def _path(mistake: Mistake) -> list[str]:
    return mistake.message.split(" is a circle")[0].split(" -> ")


def test_a_circle_is_told_with_its_path_and_a_way_out() -> None:
    (found,) = _circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})
    assert found.message == "a -> b -> c -> a is a circle: none of them could ever start"
    assert found.advice == "remove one of these needs, for example b from a"
    assert found.path == ("tasks", "a", "needs")


def test_a_task_that_needs_itself_is_a_circle() -> None:
    (found,) = _circles({"a": ["a"]})
    assert _path(found) == ["a", "a"]


def test_what_only_leads_to_a_circle_is_not_in_its_path() -> None:
    (found,) = _circles({"start": ["a"], "a": ["b"], "b": ["a"]})
    assert _path(found) == ["a", "b", "a"]


def test_a_diamond_is_no_circle() -> None:
    assert _circles({"top": ["left", "right"], "left": ["end"], "right": ["end"], "end": []}) == []


def test_two_circles_are_told_together() -> None:
    found = _circles({"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"]})
    assert [_path(each) for each in found] == [["a", "b", "a"], ["c", "d", "c"]]


def test_a_circle_before_another_circle_is_told_too() -> None:
    found = _circles({"a": ["x", "b"], "b": ["y", "a"], "x": ["x"], "y": ["y"]})
    assert sorted(_path(each) for each in found) == [["a", "b", "a"], ["x", "x"], ["y", "y"]]


def test_a_long_chain_is_walked_without_recursion() -> None:
    chain = {f"t{number}": [f"t{number + 1}"] for number in range(1200)} | {"t1200": []}
    assert _circles(chain) == []


@pytest.mark.parametrize(
    ("needs", "phases"),
    [
        ({"a": ["b"], "b": []}, {"a": "one", "b": "two"}),
        ({"a": ["b"], "b": []}, {"a": "one", "b": "three"}),
        ({"a": ["between"], "between": ["b"], "b": []}, {"a": "one", "b": "two"}),
    ],
    ids=["next phase", "a phase further on", "by way of a task without a phase"],
)
def test_to_need_a_task_of_a_later_phase_is_a_circle(needs: Mapping[str, Sequence[str]], phases: Mapping[str, str]) -> None:
    (found,) = _circles(needs, phases)
    assert "since phases go in order" in found.message
    assert found.path in {("tasks", "a", "needs"), ("tasks", "between", "needs")}
    who, what = found.path[1], found.advice.split("for example ")[1].split(" from ")[0]
    assert what in needs[str(who)], "only what somebody wrote can be removed"


def test_to_need_a_task_of_the_same_or_an_earlier_phase_is_fine() -> None:
    assert _circles({"a": [], "b": ["a"], "c": ["a", "b"]}, {"a": "one", "b": "one", "c": "three"}) == []


NAMES = [f"t{number}" for number in range(7)]
graphs = st.fixed_dictionaries({name: st.lists(st.sampled_from(NAMES), max_size=2, unique=True) for name in NAMES})
some_phases = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(PHASES))


@quick
@given(needs=graphs)
def test_every_circle_that_is_told_is_there(needs: dict[str, list[str]]) -> None:
    for found in _circles(needs):
        path = _path(found)
        assert path[0] == path[-1]
        assert len(set(path[:-1])) == len(path) - 1
        assert all(after in needs[before] for before, after in pairwise(path))


@quick
@given(needs=graphs)
def test_every_task_that_needs_itself_in_the_end_has_a_circle_told_among_its_own(needs: dict[str, list[str]]) -> None:
    by_name = {task.spec.name: task.spec for task in _tasks(needs)}
    reach = {name: ancestors(name, by_name) for name in NAMES}
    told = [set(_path(found)) for found in _circles(needs)]
    for name in NAMES:
        if name in reach[name]:
            knot = {other for other in NAMES if other in reach[name] and name in reach[other]}
            assert any(circle <= knot for circle in told)


@quick
@given(needs=graphs, phases=some_phases)
def test_a_workflow_without_mistakes_can_run_to_its_end_and_one_with_a_circle_cannot(
    needs: dict[str, list[str]], phases: dict[str, str]
) -> None:
    tasks = _tasks(needs, phases)
    graph = {spec.name: spec.needs for spec in expand(tasks, PHASES)}
    try:
        TopologicalSorter(graph).prepare()
        stuck = False
    except CycleError:
        stuck = True
    assert bool(mistakes(tasks, AROUND)) is stuck
