"""Who gets an agent now: examples."""

from typing import Any

import pytest

from kapelle.core.dispatch import Demand, Room, hindrances, overlap, place
from kapelle.core.ids import RunId, TaskId
from kapelle.core.placing import Choice, Group, HostRoom, Of, Strategy, Tally
from kapelle.core.task import NEAR, Priority, Wait

R1, R2 = RunId("r-1"), RunId("r-2")
GB = 1_000_000_000


def _choice(config: str = "dev", *, limit: int | None = None, **more: Any) -> Choice:
    group = Group(Of.CONFIG, config)
    return Choice(config=config, groups=(group,), limits=((group, limit),) if limit is not None else (), **more)


def _demand(name: str, rank: float = 0, *, config: str = "dev", config_limit: int | None = None, **more: Any) -> Demand:
    fields = {"run_id": R1, "choices": (_choice(config, limit=config_limit),), **more}
    return Demand(task_id=TaskId(name), rank=rank, **fields)


def _room(slots: int, live: int = 0, **more: Any) -> Room:
    host = {
        key: more.pop(key) for key in list(more) if key in {"memory", "memory_promised", "memory_free", "cpus", "cpus_promised"}
    }
    return Room(hosts=(HostRoom(name="here", slots=slots, live=live, **host),), **more)


def _placed(demands: list[Demand], room: Room) -> list[str]:
    return [placement.task_id for placement in place(demands, room)[0]]


def test_tasks_are_placed_by_rank_until_the_slots_are_taken() -> None:
    demands = [_demand("c", 3), _demand("a", 1), _demand("b", 2)]
    placed, waiting = place(demands, _room(2))
    assert [(each.task_id, each.host) for each in placed] == [("a", "here"), ("b", "here")]
    assert [(each.task_id, each.wait, each.detail) for each in waiting] == [
        ("c", Wait.CAPACITY, "all 2 slots of here are taken")
    ]


def test_live_agents_take_slots() -> None:
    assert _placed([_demand("a", 1), _demand("b", 2)], _room(3, 2)) == ["a"]


def test_more_live_agents_than_slots_are_no_room() -> None:
    assert _placed([_demand("a")], _room(1, 4)) == []


def test_a_task_that_takes_no_slot_is_placed_in_a_full_house() -> None:
    assert _placed([_demand("a"), _demand("free", 1, slotless=True)], _room(0)) == ["free"]


def test_one_that_comes_back_goes_before_all_that_are_new() -> None:
    demands = [_demand("new", 1), _demand("back", 900, returning=True)]
    assert _placed(demands, _room(1)) == ["back"]


def test_the_limit_of_a_run_leaves_room_for_other_runs() -> None:
    two = ((Group(Of.RUN, R1), 2),)
    demands = [_demand("a", 1, limits=two), _demand("b", 2, limits=two), _demand("c", 3, run_id=R2)]
    room = _room(9, 1, live_by={Group(Of.RUN, R1): 1})
    placed, waiting = place(demands, room)
    assert sorted(each.task_id for each in placed) == ["a", "c"]
    assert waiting[0].detail == "2 agents of this run are live, its limit"


def test_the_limit_of_a_config_leaves_room_for_other_configs() -> None:
    demands = [_demand("a", 1, config_limit=1), _demand("b", 2, config_limit=1), _demand("c", 3, config="reviewer")]
    placed, waiting = place(demands, _room(9))
    assert [each.task_id for each in placed] == ["a", "c"]
    assert waiting[0].detail == "1 agent of the kind dev is live, its limit"


def test_what_is_planned_counts_for_what_comes_after() -> None:
    room = _room(9, 1, live_by={Group(Of.CONFIG, "dev"): 1})
    assert _placed([_demand(name, config_limit=3) for name in "abcd"], room) == ["a", "b"]


def test_the_room_that_was_read_is_not_changed_by_planning() -> None:
    room = _room(9)
    place([_demand("a"), _demand("b")], room)
    assert room.live_by == {}


def test_a_task_that_touches_other_files_goes_before_one_that_would_collide() -> None:
    demands = [_demand("same", 1, writes=("src/api/**",)), _demand("other", 2, writes=("docs/**",))]
    assert _placed(demands, _room(1, writing={"": ("src/api/views.py",)})) == ["other"]


def test_what_was_just_placed_counts_as_writing() -> None:
    demands = [_demand("a", 1, writes=("src/*",)), _demand("b", 2, writes=("src/x.py",)), _demand("c", 3, writes=("docs/*",))]
    assert _placed(demands, _room(2)) == ["a", "c"]


def test_a_task_that_would_collide_goes_all_the_same_when_nothing_else_can() -> None:
    demands = [_demand("a", 1, writes=("src/*",)), _demand("b", 2, writes=("src/*",))]
    assert _placed(demands, _room(9, writing={"": ("src/x.py",)})) == ["a", "b"]


def test_to_touch_other_files_helps_only_those_who_are_nearly_as_near_their_turn() -> None:
    demands = [_demand("same", 1, writes=("src/*",)), _demand("other", 1 + NEAR + 1, writes=("docs/*",))]
    assert _placed(demands, _room(1, writing={"": ("src/x.py",)})) == ["same"]


def test_a_new_task_does_not_pass_one_that_comes_back_for_the_sake_of_its_files() -> None:
    demands = [_demand("back", 5, writes=("src/*",), returning=True), _demand("new", 1, writes=("docs/*",))]
    assert _placed(demands, _room(1, writing={"": ("src/x.py",)})) == ["back"]


def test_no_demand_no_plan() -> None:
    assert place([], _room(3)) == ([], [])


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


# --- Whose turn it is ---


def test_a_run_without_agents_goes_before_one_that_has_some_however_late_it_comes() -> None:
    demands = [_demand(f"old-{number}", number) for number in range(3)] + [_demand("new", 5000, run_id=R2)]
    assert _placed(demands, _room(2)) == ["old-0", "new"]


def test_a_project_without_agents_goes_before_one_that_has_some() -> None:
    demands = [_demand("a", 0, project="one"), _demand("b", 1, run_id=R2, project="one")]
    demands += [_demand("c", 900, run_id=RunId("r-3"), project="two")]
    assert _placed(demands, _room(2)) == ["a", "c"]


def test_a_share_is_no_reason_to_pass_a_higher_priority() -> None:
    demands = [_demand("urgent", 1, priority=Priority.HIGH), _demand("idle", 2, run_id=R2)]
    assert _placed(demands, _room(1, live_by={Group(Of.RUN, R1): 3})) == ["urgent"]


def test_a_run_uses_its_turn_for_the_task_of_its_own_that_is_nearest() -> None:
    demands = [_demand("other", 0), _demand("high", 10, run_id=R2, priority=Priority.HIGH), _demand("normal", 20, run_id=R2)]
    assert _placed(demands, _room(1, live_by={Group(Of.RUN, R1): 1})) == ["high"]


# --- Which agent it gets ---


EITHER = (_choice("coder"), _choice("tester"))


def _chosen(strategy: Strategy, choices: tuple[Choice, ...], **room: Any) -> list[str]:
    demands = [_demand(f"t{number}", number, choices=choices, strategy=strategy) for number in range(4)]
    return [each.config for each in place(demands, _room(4, **room))[0]]


def test_the_least_loaded_config_is_taken_and_of_equals_the_first() -> None:
    assert _chosen(Strategy.LEAST_LOADED, EITHER) == ["coder", "tester", "coder", "tester"]
    busy = {Group(Of.CONFIG, "coder"): 2}
    assert _chosen(Strategy.LEAST_LOADED, EITHER, live_by=busy) == ["tester", "tester", "coder", "tester"]


def test_a_load_is_measured_by_what_a_config_may_carry() -> None:
    choices = (_choice("coder", limit=3), _choice("tester", limit=1))
    assert _chosen(Strategy.LEAST_LOADED, choices) == ["coder", "tester", "coder", "coder"]


def test_configs_take_turns_whatever_their_load() -> None:
    busy = {Group(Of.CONFIG, "tester"): 3}
    assert _chosen(Strategy.ROUND_ROBIN, EITHER, live_by=busy) == ["coder", "tester", "coder", "tester"]
    given = {Group(Of.CONFIG, "coder"): 5, Group(Of.CONFIG, "tester"): 4}
    assert _chosen(Strategy.ROUND_ROBIN, EITHER, given=given)[:2] == ["tester", "coder"]


def test_the_best_fit_is_the_config_with_the_fewest_abilities_to_spare() -> None:
    choices = (_choice("versatile", spare=3), _choice("plain", limit=2, spare=0))
    assert _chosen(Strategy.BEST_FIT, choices) == ["plain", "plain", "versatile", "versatile"]


def test_what_was_considered_is_told_with_scores_and_reasons() -> None:
    choices = (_choice("coder", limit=1), _choice("tester"))
    (placed,), _ = place([_demand("a", choices=choices)], _room(2, live_by={Group(Of.CONFIG, "coder"): 1}))
    assert [(each.config, each.score, each.refusal) for each in placed.considered] == [
        ("tester", 0.0, ""),
        ("coder", None, "1 agent of the kind coder is live, its limit"),
    ]


def test_one_that_comes_back_goes_to_the_host_of_its_workspace_or_waits() -> None:
    hosts = (HostRoom(name="one", slots=4), HostRoom(name="two", slots=4, live=3))
    placed, waiting = place([_demand("a", at="two"), _demand("b", 1, at="three")], Room(hosts=hosts))
    assert [each.host for each in placed] == ["two"]
    assert [each.detail for each in waiting] == ["its workspace is on three, which is not here"]


def test_work_is_spread_over_hosts_or_fills_them() -> None:
    hosts = (HostRoom(name="one", slots=4, live=1), HostRoom(name="two", slots=4, live=3))
    for strategy, host in ((Strategy.LEAST_LOADED, "one"), (Strategy.BEST_FIT, "two")):
        assert place([_demand("a", strategy=strategy)], Room(hosts=hosts))[0][0].host == host


# --- Limits, memory, processors ---


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (Group(Of.PROJECT, "shop"), "2 agents of the project shop are live, its limit"),
        (Group(Of.ACCOUNT, "mine", "env:KEY@there"), "2 agents of the account mine are live, its limit"),
    ],
)
def test_a_limit_that_is_reached_is_told_with_its_number(group: Group, words: str) -> None:
    demand = _demand("a", project="shop", limits=((group, 2),))
    assert place([demand], _room(9, live_by={group: 2}))[1][0].detail == words


def test_the_limit_of_a_model_holds_for_all_configs_with_it() -> None:
    model = Group(Of.MODEL, "opus", "account")
    choices = [
        Choice(config=name, groups=(Group(Of.CONFIG, name), model), limits=((model, 1),)) for name in ("coder", "tester")
    ]
    placed, waiting = place([_demand(each.config, choices=(each,)) for each in choices], _room(9))
    assert (len(placed), waiting[0].detail) == (1, "1 agent of the model opus is live, its limit")


def test_an_account_that_has_just_come_back_starts_one_at_a_time() -> None:
    account = Group(Of.ACCOUNT, "mine", "id")
    choice = Choice(config="dev", groups=(Group(Of.CONFIG, "dev"), account), account=account)
    demands = [
        _demand("a", choices=(choice,)),
        _demand("b", 1, choices=(choice, _choice("offline"))),
        _demand("c", 2, choices=(choice,)),
    ]
    placed, waiting = place(demands, _room(9, starts={account: 1}, why={account: "one after the other"}))
    assert [(each.task_id, each.config) for each in placed] == [("a", "dev"), ("b", "offline")]
    assert (waiting[0].wait, waiting[0].detail) == (Wait.LIMIT, "one after the other")


def test_memory_that_is_promised_is_not_promised_again() -> None:
    demands = [_demand(name, choices=(_choice(memory=3 * GB),)) for name in "abc"]
    placed, waiting = place(demands, _room(9, 1, memory=8 * GB, memory_promised=2 * GB))
    assert len(placed) == 2
    assert (waiting[0].wait, waiting[0].detail) == (
        Wait.CAPACITY,
        "here has 8 GB of memory for agents, 8 GB of it promised; dev asks for 3 GB",
    )


def test_memory_that_others_use_is_not_given_out() -> None:
    demands = [_demand(name, choices=(_choice(memory=GB),)) for name in "ab"]
    placed, waiting = place(demands, _room(9, memory=8 * GB, memory_free=GB + GB // 2))
    assert len(placed) == 1
    assert waiting[0].detail == "500 MB of the memory of here is left for agents by measure; dev asks for 1 GB"


def test_a_program_needs_its_memory_though_it_asks_for_none() -> None:
    _, waiting = place([_demand("a", choices=(_choice(least_memory=GB),))], _room(9, memory=8 * GB, memory_free=1000))
    assert waiting[0].detail == "1 kB of the memory of here is left for agents by measure; dev needs 1 GB"


def test_processors_that_are_promised_are_not_promised_again() -> None:
    demands = [_demand(name, choices=(_choice(cpus=1.5),)) for name in "ab"]
    placed, waiting = place(demands, _room(9, cpus=2.0))
    assert len(placed) == 1
    assert waiting[0].detail == "here has 2 processors, 1.5 of them promised to agents; dev asks for 1.5"


def test_everything_that_stands_in_the_way_can_be_told_at_once() -> None:
    run = Group(Of.RUN, R1)
    demand = _demand("a", limits=((run, 1),), choices=(_choice(cpus=2.0, limit=1),))
    live = {run: 1, Group(Of.CONFIG, "dev"): 1}
    found = [refusal.rule for refusal in hindrances(demand, Tally(_room(1, 1, cpus=1.0, live_by=live)))]
    assert found == ["run", "slots", "config", "cpus"]
