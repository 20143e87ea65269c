"""Who gets an agent now: what holds for every plan."""

from collections import Counter
from dataclasses import replace
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.dispatch import Demand, Placement, Room, overlap, place, refusal_of
from kapelle.core.ids import RunId, TaskId
from kapelle.core.placing import Choice, Group, HostRoom, Of, Strategy, Tally
from kapelle.core.task import NEAR, Priority

quick = settings(max_examples=100, deadline=None)
RUNS = [RunId("r-1"), RunId("r-2"), RunId("r-3")]
PROJECTS = {RUNS[0]: "shop", RUNS[1]: "shop", RUNS[2]: "blog"}
LIMITS = {"dev": 2, "reviewer": 1, "tester": None}
MODEL = Group(Of.MODEL, "opus", "account")
ACCOUNT = Group(Of.ACCOUNT, "mine", "account")
GB = 1_000_000_000
globs = st.sampled_from(["src/*", "src/a.py", "docs/**", "tests/*.py", "README.md"])


def _choice(config: str, *, memory: int = 0, cpus: float = 0.0, model: int | None = None, account: int | None = None) -> Choice:
    own, limit = Group(Of.CONFIG, config), LIMITS[config]
    limits = (() if limit is None else ((own, limit),)) + (() if model is None else ((MODEL, model),))
    if account is not None:
        limits = (*limits, (ACCOUNT, account))
    mine = ACCOUNT if config != "tester" else None
    groups = (own, MODEL) if mine is None else (own, MODEL, mine)
    return Choice(config=config, groups=groups, account=mine, limits=limits, memory=memory, cpus=cpus)


CHOICES = st.lists(st.sampled_from(sorted(LIMITS)), min_size=1, max_size=3, unique=True)


@st.composite
def _demands(draw: st.DrawFn) -> list[Demand]:
    found: list[Demand] = []
    most = {Group(Of.RUN, run): draw(st.integers(0, 4)) for run in RUNS}
    most |= {Group(Of.PROJECT, name): draw(st.integers(0, 5)) for name in ("shop", "blog")}
    model, account = draw(st.none() | st.integers(0, 4)), draw(st.none() | st.integers(0, 4))
    for number in range(draw(st.integers(0, 12))):
        run_id = draw(st.sampled_from(RUNS))
        project = PROJECTS[run_id]
        limited = [Group(Of.RUN, run_id), Group(Of.PROJECT, project)]
        demand = Demand(
            task_id=TaskId(f"t-{number}"),
            run_id=run_id,
            project=project,
            rank=draw(st.integers(0, 300)),
            priority=draw(st.sampled_from([Priority.NORMAL, Priority.HIGH])),
            choices=tuple(
                _choice(name, memory=draw(st.integers(0, 3)) * GB, cpus=draw(st.integers(0, 2)), model=model, account=account)
                for name in draw(CHOICES)
            ),
            strategy=draw(st.sampled_from(Strategy)),
            limits=tuple((group, most[group]) for group in limited if draw(st.booleans())),
            writes=tuple(draw(st.lists(globs, max_size=2))),
            returning=draw(st.booleans()),
            slotless=draw(st.integers(0, 5)) == 0,
        )
        found.append(demand)
    return found


hosts = st.builds(
    HostRoom,
    name=st.just("here"),
    slots=st.integers(0, 8),
    live=st.integers(0, 8),
    memory=st.none() | st.integers(0, 9).map(lambda number: number * GB),
    memory_promised=st.integers(0, 4).map(lambda number: number * GB),
    memory_free=st.none() | st.integers(-1, 9).map(lambda number: number * GB),
    cpus=st.none() | st.integers(1, 8).map(float),
    cpus_promised=st.integers(0, 4).map(float),
)
groups = st.sampled_from(
    [ACCOUNT, MODEL, *(Group(Of.RUN, run) for run in RUNS), *(Group(Of.CONFIG, name) for name in sorted(LIMITS))]
)
rooms = st.builds(
    Room,
    hosts=st.tuples(hosts) | st.tuples(hosts, hosts.map(lambda host: replace(host, name="there"))),
    live_by=st.dictionaries(groups, st.integers(0, 3)),
    starts=st.dictionaries(st.just(ACCOUNT), st.integers(0, 2)),
    writing=st.dictionaries(st.just("shop"), st.lists(globs, max_size=2).map(tuple)),
)


def _split(demands: list[Demand], room: Room) -> tuple[list[tuple[Demand, Placement]], list[Demand]]:
    by_id = {demand.task_id: demand for demand in demands}
    placed, waiting = place(demands, room)
    taken = [(by_id[each.task_id], each) for each in placed]
    return [pair for pair in taken if not pair[0].slotless], [by_id[each.task_id] for each in waiting]


def _chosen(demand: Demand, placement: Placement) -> Choice:
    return next(choice for choice in demand.choices if choice.config == placement.config)


@quick
@given(demands=_demands(), room=rooms)
def test_every_task_gets_a_placement_or_a_reason(demands: list[Demand], room: Room) -> None:
    placed, waiting = place(demands, room)
    assert Counter(each.task_id for each in (*placed, *waiting)) == Counter(each.task_id for each in demands)
    assert all(each.detail or each.rule == "starts" for each in waiting)


@quick
@given(demands=_demands(), room=rooms)
def test_no_limit_is_ever_exceeded(demands: list[Demand], room: Room) -> None:
    placed, _ = _split(demands, room)
    live = Counter(room.live_by)
    for demand, placement in placed:
        choice = _chosen(demand, placement)
        live.update([*demand.groups, *choice.groups])
        # Limits may differ from task to task: each holds for the task that brings it.
        assert all(live[group] <= most for group, most in (*demand.limits, *choice.limits))
    for account, most in room.starts.items():
        assert sum(_chosen(demand, placement).account == account for demand, placement in placed) <= most


@quick
@given(demands=_demands(), room=rooms)
def test_slots_memory_and_processors_are_never_promised_twice(demands: list[Demand], room: Room) -> None:
    placed, _ = _split(demands, room)
    for host in room.hosts:
        here = [_chosen(demand, placement) for demand, placement in placed if placement.host == host.name]
        memory = sum(choice.memory for choice in here)
        assert len(here) <= max(host.slots - host.live, 0)
        assert not memory or host.memory is None or host.memory_promised + memory <= host.memory
        assert not memory or host.memory_free is None or memory <= host.memory_free
        cpus = sum(choice.cpus for choice in here)
        assert not cpus or host.cpus is None or host.cpus_promised + cpus <= host.cpus


@quick
@given(demands=_demands(), room=rooms, data=st.data())
def test_the_placements_of_a_plan_fit_in_any_order(demands: list[Demand], room: Room, data: st.DataObject) -> None:
    most = {group: limit for demand in demands for group, limit in demand.limits}
    # With limits that all tasks of a group share, as all that is submitted at one time does.
    alike = [
        replace(demand, limits=tuple((group, most[group]) for group in demand.groups if group in most)) for demand in demands
    ]
    placed, _ = _split(alike, room)
    tally = Tally(room)
    for demand, placement in data.draw(st.permutations(placed)):
        choice = _chosen(demand, placement)
        host = next(host for host in room.hosts if host.name == placement.host)
        assert not list(tally.against(choice, host))
        assert not list(tally.in_the_way(demand.limits))
        tally.take(choice, host.name, demand.groups)


@quick
@given(demands=_demands(), room=rooms)
def test_nobody_waits_while_there_is_room_for_them(demands: list[Demand], room: Room) -> None:
    placed, waiting = _split(demands, room)
    tally = Tally(room)
    for demand, placement in placed:
        tally.take(_chosen(demand, placement), placement.host, demand.groups)
    assert all(refusal_of(demand, tally) is not None for demand in waiting)


def _plain(demand: Demand) -> Demand:
    return replace(demand, choices=(Choice(config="tester"),), limits=(), slotless=False, writes=())


@quick
@given(demands=_demands(), slots=st.integers(0, 8), live=st.dictionaries(groups, st.integers(0, 3)))
def test_no_run_gets_more_agents_than_another_of_its_project_that_waits_needs_to_have(
    demands: list[Demand], slots: int, live: dict[Group, int]
) -> None:
    equal = [replace(_plain(demand), priority=Priority.NORMAL, returning=False, project="shop") for demand in demands]
    placed, waiting = _split(equal, Room(hosts=(HostRoom(name="here", slots=slots),), live_by=live))
    after = Counter(live) + Counter(demand.its_run for demand, _ in placed)
    for got in {demand.its_run for demand, _ in placed}:
        for waits in waiting:
            assert after[got] <= after[waits.its_run] + 1


@quick
@given(demands=_demands(), slots=st.integers(0, 8))
def test_no_project_gets_more_agents_than_another_that_waits_needs_to_have(demands: list[Demand], slots: int) -> None:
    equal = [replace(_plain(demand), priority=Priority.NORMAL, returning=False) for demand in demands]
    placed, waiting = _split(equal, Room(hosts=(HostRoom(name="here", slots=slots),)))
    after = Counter(demand.project for demand, _ in placed)
    assert all(after[got] <= after[waits.project] + 1 for got in after for waits in waiting)


@quick
@given(demands=_demands(), slots=st.integers(0, 8), writing=st.lists(globs, max_size=2))
def test_within_a_run_a_task_passes_another_only_when_it_is_as_near_its_turn(
    demands: list[Demand], slots: int, writing: list[str]
) -> None:
    alike = [replace(_plain(each), run_id=RUNS[0], project="shop", writes=each.writes) for each in demands]
    placed, waiting = _split(alike, Room(hosts=(HostRoom(name="here", slots=slots),), writing={"shop": tuple(writing)}))
    for first, _ in placed:
        for last in waiting:
            assert first.returning >= last.returning
            assert first.returning > last.returning or first.rank <= last.rank + NEAR


@quick
@given(demands=_demands(), room=rooms, data=st.data())
def test_the_plan_does_not_depend_on_the_order_in_which_tasks_are_read(
    demands: list[Demand], room: Room, data: st.DataObject
) -> None:
    assert place(data.draw(st.permutations(demands)), room) == place(demands, room)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), busy=st.integers(1, 4), slots=st.integers(1, 3))
def test_no_task_starves_though_new_runs_come_all_the_time(order: list[int], busy: int, slots: int) -> None:
    # Each round a slot becomes free and a new run with one task comes; agents end after *busy* rounds.
    waiting = [_newcomer(f"mine-{number}", RunId("r-mine"), number) for number in order]
    live: list[tuple[int, Demand]] = []
    for turn in range(40 * (busy + slots)):
        waiting += [_newcomer(f"new-{turn}-{each}", RunId(f"r-{turn}-{each}"), 100 + turn) for each in range(slots)]
        live = [(end, demand) for end, demand in live if end > turn]
        counts = Counter(group for _, demand in live for group in demand.groups)
        placed, _ = place(waiting, Room(hosts=(HostRoom(name="here", slots=slots, live=len(live)),), live_by=counts))
        names = {each.task_id for each in placed}
        live += [(turn + busy, demand) for demand in waiting if demand.task_id in names]
        waiting = [demand for demand in waiting if demand.task_id not in names]
        if not any(demand.run_id == "r-mine" for demand in waiting):
            return
    raise AssertionError(f"{len(waiting)} tasks wait, some of them for ever")


def _newcomer(name: str, run_id: RunId, rank: float) -> Demand:
    return Demand(task_id=TaskId(name), run_id=run_id, project="shop", rank=rank, choices=(Choice(config="dev"),))


def test_the_strategies_do_not_change_who_is_placed() -> None:
    choices = (Choice(config="coder", spare=2), Choice(config="tester"))
    room = Room(hosts=(HostRoom(name="here", slots=2),))
    for ranks in permutations(range(3)):
        made = [
            [Demand(task_id=TaskId(f"t-{rank}"), run_id=RUNS[0], rank=rank, choices=choices, strategy=each) for rank in ranks]
            for each in Strategy
        ]
        assert {tuple(placed.task_id for placed in place(demands, room)[0]) for demands in made} == {("t-0", "t-1")}


paths = st.lists(st.sampled_from(["src", "docs", "a", "*", "b?", "**"]), min_size=1, max_size=3).map("/".join)


@quick
@given(one=st.lists(paths, max_size=3), other=st.lists(paths, max_size=3))
def test_to_overlap_is_mutual(one: list[str], other: list[str]) -> None:
    assert overlap(one, other) is overlap(other, one)


@quick
@given(one=paths, other=paths)
def test_globs_that_begin_differently_never_overlap(one: str, other: str) -> None:
    assert not overlap([f"left/{one}"], [f"right/{other}"])
