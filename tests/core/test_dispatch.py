"""Who gets an agent now: examples."""

from collections import Counter
from typing import Any

import pytest

from kapelle.core.dispatch import WINDOW, Demand, Room, overlap, place
from kapelle.core.ids import RunId, TaskId
from kapelle.core.task import Wait

R1, R2 = RunId("r-1"), RunId("r-2")


def _demand(name: str, rank: float = 0, **more: Any) -> Demand:
    fields = {"run_id": R1, "config": "dev", **more}
    return Demand(task_id=TaskId(name), rank=rank, **fields)


def _placed(demands: list[Demand], room: Room) -> list[str]:
    return [placement.task_id for placement in place(demands, room)[0]]


def test_tasks_are_placed_by_rank_until_the_slots_are_taken() -> None:
    demands = [_demand("c", 3), _demand("a", 1), _demand("b", 2)]
    placed, waiting = place(demands, Room(host="here", slots=2))
    assert [(each.task_id, each.host) for each in placed] == [("a", "here"), ("b", "here")]
    assert [(each.task_id, each.wait, each.detail) for each in waiting] == [
        ("c", Wait.CAPACITY, "all 2 slots of here are taken")
    ]


def test_live_agents_take_slots() -> None:
    assert _placed([_demand("a", 1), _demand("b", 2)], Room(host="here", slots=3, live=2)) == ["a"]


def test_more_live_agents_than_slots_are_no_room() -> None:
    assert _placed([_demand("a")], Room(host="here", slots=1, live=4)) == []


def test_a_task_that_takes_no_slot_is_placed_in_a_full_house() -> None:
    assert _placed([_demand("a"), _demand("free", 1, slotless=True)], Room(host="here", slots=0)) == ["free"]


def test_one_that_comes_back_goes_before_all_that_are_new() -> None:
    demands = [_demand("new", 1), _demand("back", 900, returning=True)]
    assert _placed(demands, Room(host="here", slots=1)) == ["back"]


def test_the_limit_of_a_run_leaves_room_for_other_runs() -> None:
    demands = [_demand("a", 1), _demand("b", 2), _demand("c", 3, run_id=R2)]
    room = Room(host="here", slots=9, live=1, live_by_run=Counter({R1: 1}), run_limits={R1: 2})
    placed, waiting = place(demands, room)
    assert [each.task_id for each in placed] == ["a", "c"]
    assert waiting[0].detail == "2 agents of this run are live, its limit"


def test_the_limit_of_a_config_leaves_room_for_other_configs() -> None:
    demands = [_demand("a", 1, config_limit=1), _demand("b", 2, config_limit=1), _demand("c", 3, config="reviewer")]
    placed, waiting = place(demands, Room(host="here", slots=9))
    assert [each.task_id for each in placed] == ["a", "c"]
    assert waiting[0].detail == "1 agents of the kind dev are live, its limit"


def test_what_is_planned_counts_for_what_comes_after() -> None:
    room = Room(host="here", slots=9, live=1, live_by_config=Counter({"dev": 1}))
    assert _placed([_demand(name, config_limit=3) for name in "abcd"], room) == ["a", "b"]


def test_the_room_that_was_read_is_not_changed_by_planning() -> None:
    room = Room(host="here", slots=9)
    place([_demand("a"), _demand("b")], room)
    assert (room.live_by_run, room.live_by_config) == (Counter(), Counter())


def test_a_task_that_touches_other_files_goes_before_one_that_would_collide() -> None:
    demands = [_demand("same", 1, writes=("src/api/**",)), _demand("other", 2, writes=("docs/**",))]
    assert _placed(demands, Room(host="here", slots=1, writing=("src/api/views.py",))) == ["other"]


def test_what_was_just_placed_counts_as_writing() -> None:
    demands = [_demand("a", 1, writes=("src/*",)), _demand("b", 2, writes=("src/x.py",)), _demand("c", 3, writes=("docs/*",))]
    assert _placed(demands, Room(host="here", slots=2)) == ["a", "c"]


def test_a_task_that_would_collide_goes_all_the_same_when_nothing_else_can() -> None:
    demands = [_demand("a", 1, writes=("src/*",)), _demand("b", 2, writes=("src/*",))]
    assert _placed(demands, Room(host="here", slots=9, writing=("src/x.py",))) == ["a", "b"]


def test_to_touch_other_files_helps_only_those_who_are_nearly_as_near_their_turn() -> None:
    demands = [_demand("same", 1, writes=("src/*",)), _demand("other", 1 + WINDOW + 1, writes=("docs/*",))]
    assert _placed(demands, Room(host="here", slots=1, writing=("src/x.py",))) == ["same"]


def test_a_new_task_does_not_pass_one_that_comes_back_for_the_sake_of_its_files() -> None:
    demands = [_demand("back", 5, writes=("src/*",), returning=True), _demand("new", 1, writes=("docs/*",))]
    assert _placed(demands, Room(host="here", slots=1, writing=("src/x.py",))) == ["back"]


def test_no_demand_no_plan() -> None:
    assert place([], Room(host="here", slots=3)) == ([], [])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("src/a.py", "src/a.py", True),
        ("src/**", "src/api/views.py", True),
        ("src/*", "src/api/*", True),
        ("src/a*.py", "src/a*.pyi", True),
        ("src/*", "docs/*", False),
        ("src/a.py", "src/b.py", False),
        ("README.md", "docs/**", False),
        ("*", "anything/at/all", True),
    ],
)
def test_globs_overlap_when_they_are_likely_to_name_the_same_file(one: str, other: str, *, expected: bool) -> None:
    assert overlap([one], [other]) is expected
    assert overlap([other], [one]) is expected


def test_nothing_overlaps_with_nothing() -> None:
    assert not overlap([], ["*"])
    assert not overlap([], [])
