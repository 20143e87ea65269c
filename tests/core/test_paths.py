"""How long tasks will probably take, and which chain of them holds up the end of a run."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.dispatch import Demand, Room, place
from kapelle.core.ids import RunId, TaskId
from kapelle.core.paths import ASSUMED, Took, after, critical_paths, likely
from kapelle.core.placing import Choice, HostRoom
from kapelle.core.task import Priority, TaskSpec, rank

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def _took(name: str, config: str, seconds: float) -> dict[tuple[str, str], Took]:
    return {(name, config): Took(project="shop", name=name, config=config, seconds=seconds)}


def test_a_task_takes_what_similar_ones_took_or_what_was_estimated_or_what_is_assumed() -> None:
    spec = TaskSpec(name="port[a]", origin="port", agent="coder", estimate=HOUR)
    assert likely(spec, _took("port", "coder", 90)) == timedelta(seconds=90)
    assert likely(spec, _took("port", "other", 90)) == HOUR
    assert likely(TaskSpec(name="port", agent="coder"), {}) == ASSUMED


def test_of_several_configs_the_first_that_did_something_similar_tells() -> None:
    spec = TaskSpec(name="port", agent="coder", agents=("coder", "tester"))
    assert likely(spec, _took("port", "tester", 60)) == MINUTE


def test_the_newer_times_count_more() -> None:
    spec = TaskSpec(name="port", agent="coder")
    first = after(None, "shop", spec, "coder", 100 * timedelta(seconds=1))
    assert (first.seconds, first.times) == (100.0, 1)
    second = after(first, "shop", spec, "coder", 200 * timedelta(seconds=1))
    assert (second.seconds, second.times) == (130.0, 2)


def test_a_critical_path_is_the_longest_chain_of_those_that_need_a_task() -> None:
    tasks = [
        TaskSpec(name="base", estimate=10 * MINUTE),
        TaskSpec(name="quick", needs=("base",), estimate=MINUTE),
        TaskSpec(name="slow", needs=("base",), estimate=HOUR),
        TaskSpec(name="end", needs=("quick", "slow"), estimate=5 * MINUTE),
    ]
    assert critical_paths(tasks, {}) == {
        "base": 75 * MINUTE,
        "quick": 6 * MINUTE,
        "slow": 65 * MINUTE,
        "end": 5 * MINUTE,
    }


def test_what_a_task_needs_of_an_earlier_run_is_on_nobodys_path() -> None:
    assert critical_paths([TaskSpec(name="a", needs=("gone",), estimate=MINUTE)], {}) == {"a": MINUTE}


@settings(max_examples=50, deadline=None)
@given(estimates=st.lists(st.integers(1, 600), min_size=2, max_size=8), slots=st.integers(1, 8))
def test_equal_tasks_go_in_the_order_of_their_critical_paths(estimates: list[int], slots: int) -> None:
    tasks = [TaskSpec(name=f"t{number}", estimate=minutes * MINUTE) for number, minutes in enumerate(estimates)]
    paths = critical_paths(tasks, {})
    demands = [
        Demand(task_id=TaskId(name), run_id=RunId("r"), rank=rank(T0, Priority.NORMAL, path), choices=(Choice(config="dev"),))
        for name, path in paths.items()
    ]
    placed, waiting = place(demands, Room(hosts=(HostRoom(name="here", slots=slots),)))
    taken = [paths[each.task_id] for each in placed]
    assert taken == sorted(taken, reverse=True)
    assert all(min(taken) >= paths[each.task_id] for each in waiting)


@settings(max_examples=50, deadline=None)
@given(needs=st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8))
def test_who_is_needed_has_a_longer_path_than_who_needs_it(needs: list[list[int]]) -> None:
    tasks = [
        TaskSpec(name=f"t{number}", needs=tuple({f"t{need}" for need in its if need < number}), estimate=MINUTE)
        for number, its in enumerate(needs)
    ]
    paths = critical_paths(tasks, {})
    assert all(paths[need] > paths[task.name] for task in tasks for need in task.needs)
