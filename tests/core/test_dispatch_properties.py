"""Who gets an agent now: what holds for every plan."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.dispatch import WINDOW, Demand, Room, overlap, place
from kapelle.core.ids import RunId, TaskId

quick = settings(max_examples=100, deadline=None)
RUNS = [RunId("r-1"), RunId("r-2"), RunId("r-3")]
CONFIGS = {"dev": 2, "reviewer": 1, "tester": None}
globs = st.sampled_from(["src/*", "src/a.py", "docs/**", "tests/*.py", "README.md"])


@st.composite
def _demands(draw: st.DrawFn) -> list[Demand]:
    count = draw(st.integers(0, 14))
    found: list[Demand] = []
    for number in range(count):
        config = draw(st.sampled_from(sorted(CONFIGS)))
        demand = Demand(
            task_id=TaskId(f"t-{number}"),
            run_id=draw(st.sampled_from(RUNS)),
            rank=draw(st.integers(0, 300)),
            config=config,
            config_limit=CONFIGS[config],
            writes=tuple(draw(st.lists(globs, max_size=2))),
            returning=draw(st.booleans()),
            slotless=draw(st.integers(0, 5)) == 0,
        )
        found.append(demand)
    return found


rooms = st.builds(
    Room,
    host=st.just("here"),
    slots=st.integers(0, 8),
    live=st.integers(0, 8),
    live_by_run=st.dictionaries(st.sampled_from(RUNS), st.integers(0, 3)).map(Counter),
    live_by_config=st.dictionaries(st.sampled_from(sorted(CONFIGS)), st.integers(0, 3)).map(Counter),
    run_limits=st.dictionaries(st.sampled_from(RUNS), st.integers(0, 4)),
    writing=st.lists(globs, max_size=2).map(tuple),
)


def _split(demands: list[Demand], room: Room) -> tuple[list[Demand], list[Demand]]:
    by_id = {demand.task_id: demand for demand in demands}
    placed, waiting = place(demands, room)
    return [by_id[each.task_id] for each in placed], [by_id[each.task_id] for each in waiting]


@quick
@given(demands=_demands(), room=rooms)
def test_every_task_gets_a_placement_or_a_reason(demands: list[Demand], room: Room) -> None:
    placed, waiting = _split(demands, room)
    assert Counter(each.task_id for each in placed + waiting) == Counter(each.task_id for each in demands)


@quick
@given(demands=_demands(), room=rooms)
def test_slots_are_never_exceeded(demands: list[Demand], room: Room) -> None:
    placed, _ = _split(demands, room)
    taken = [each for each in placed if not each.slotless]
    assert len(taken) <= max(room.slots - room.live, 0)


@quick
@given(demands=_demands(), room=rooms)
def test_the_limit_of_a_run_is_never_exceeded(demands: list[Demand], room: Room) -> None:
    placed, _ = _split(demands, room)
    new = Counter(each.run_id for each in placed if not each.slotless)
    for run_id, limit in room.run_limits.items():
        assert new[run_id] <= max(limit - room.live_by_run[run_id], 0)


@quick
@given(demands=_demands(), room=rooms)
def test_the_limit_of_a_config_is_never_exceeded(demands: list[Demand], room: Room) -> None:
    placed, _ = _split(demands, room)
    new = Counter(each.config for each in placed if not each.slotless)
    for config, limit in CONFIGS.items():
        if limit is not None:
            assert new[config] <= max(limit - room.live_by_config[config], 0)


@quick
@given(demands=_demands(), room=rooms)
def test_nobody_waits_while_there_is_room_for_them(demands: list[Demand], room: Room) -> None:
    placed, waiting = _split(demands, room)
    taken = [each for each in placed if not each.slotless]
    by_run = room.live_by_run + Counter(each.run_id for each in taken)
    by_config = room.live_by_config + Counter(each.config for each in taken)
    for each in waiting:
        full = room.live + len(taken) >= room.slots
        run_full = each.run_id in room.run_limits and by_run[each.run_id] >= room.run_limits[each.run_id]
        config_full = each.config_limit is not None and by_config[each.config] >= each.config_limit
        assert full or run_full or config_full


@quick
@given(demands=_demands(), slots=st.integers(0, 8), writing=st.lists(globs, max_size=2))
def test_a_task_passes_another_only_when_it_is_as_near_its_turn(demands: list[Demand], slots: int, writing: list[str]) -> None:
    alike = [
        Demand(
            task_id=each.task_id, run_id=RUNS[0], rank=each.rank, config="tester", writes=each.writes, returning=each.returning
        )
        for each in demands
    ]
    placed, waiting = _split(alike, Room(host="here", slots=slots, writing=tuple(writing)))
    for first in placed:
        for last in waiting:
            assert first.returning >= last.returning
            assert first.returning > last.returning or first.rank <= last.rank + WINDOW


@quick
@given(demands=_demands(), room=rooms, data=st.data())
def test_the_plan_does_not_depend_on_the_order_in_which_tasks_are_read(
    demands: list[Demand], room: Room, data: st.DataObject
) -> None:
    assert place(data.draw(st.permutations(demands)), room) == place(demands, room)


paths = st.lists(st.sampled_from(["src", "docs", "a", "*", "b?", "**"]), min_size=1, max_size=3).map("/".join)


@quick
@given(one=st.lists(paths, max_size=3), other=st.lists(paths, max_size=3))
def test_to_overlap_is_mutual(one: list[str], other: list[str]) -> None:
    assert overlap(one, other) is overlap(other, one)


@quick
@given(one=paths, other=paths)
def test_globs_that_begin_differently_never_overlap(one: str, other: str) -> None:
    assert not overlap([f"left/{one}"], [f"right/{other}"])
