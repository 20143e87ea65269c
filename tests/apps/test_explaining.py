"""`kapelle explain`: why a task waits, and why it went where it went."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kapelle.apps.explaining import Explanation, explain
from kapelle.core.agent import AgentConfig, Asks
from kapelle.core.budget import Allowance
from kapelle.core.conversation import Trouble
from kapelle.core.hours import WorkingHours, parse_window
from kapelle.core.placing import Strategy
from kapelle.core.ports import Measure
from kapelle.core.requests import Pause
from kapelle.core.run import Limits
from kapelle.core.task import Priority
from kapelle.engine.demands import Around
from kapelle.testing.factories import CODER, run_spec, task
from kapelle.testing.hosts import ScriptedProcess, crashes
from kapelle.testing.places import Place
from kapelle.testing.worlds import SmallWorld, world

GB = 1_000_000_000


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[SmallWorld]:
    async with world(tmp_path, seed=7) as made:
        yield made


async def explained(here: SmallWorld, name: str, *, led: bool = True) -> Explanation:
    settings = here.ports.settings
    around = Around(
        host=here.host.name,
        slots=settings.slots,
        driver=here.ports.driver,
        measure=here.host.measured,
        keep_free=settings.keep_free,
    )
    found = await here.task(name)
    run = await here.run(found.run_id)
    return await here.store.read(lambda view: explain(view, found, run, around, here.clock.now(), led=led))


def _reasons(found: Explanation) -> list[tuple[str, str]]:
    return [(reason.rule, reason.detail) for reason in found.reasons]


async def test_every_rule_that_holds_a_task_up_is_told_with_its_numbers(here: SmallWorld) -> None:
    here.set(slots=1)
    await here.submit(run_spec(task("a", priority=Priority.HIGH), task("b"), limits=Limits(agents=1, project=1)))
    leader = await here.lead()
    await leader.run()
    found = await explained(here, "b")
    assert _reasons(found) == [
        ("run", "1 agent of this run is live, its limit"),
        ("project", "1 agent of the project  is live, its limit"),
        ("slots", "all 1 slots of local are taken"),
    ]
    assert found.reasons[2].changes == "when one of these agents ends: a"
    assert found.turn is not None
    assert found.turn.count == 0


async def test_all_that_holds_a_task_up_is_told_and_not_the_first_of_it(here: SmallWorld) -> None:
    usd = Allowance(usd=1.0)

    def spends(process: ScriptedProcess, _: str) -> None:
        here.gateway.call(process.token, usd=1.0)
        process.trouble(Trouble.BUDGET, here.gateway.call(process.token, usd=1.0) or "")

    here.host.otherwise = spends
    begins = here.clock.now()
    hours = WorkingHours(windows=(parse_window(f"daily {begins:%H:%M}-{begins + timedelta(hours=8):%H:%M}"),))
    await here.submit(run_spec(task("a", budget=usd), limits=Limits(budget=usd), hours=hours))
    leader = await here.lead()
    await leader.run_out()
    here.clock.move(timedelta(hours=12))
    found = await explained(here, "a")
    assert sorted(detail for rule, detail in _reasons(found) if rule == "budget") == [
        "the budget of run run is spent ($1.00 of $1.00)",
        "the budget of task a is spent ($1.00 of $1.00)",
    ]
    assert all("kapelle answer b-" in reason.changes for reason in found.reasons if reason.rule == "budget")
    assert [rule for rule, _ in _reasons(found)][2:] == ["schedule"]


async def test_who_goes_first_is_told_with_why(here: SmallWorld) -> None:
    here.set(slots=1)
    await here.submit(run_spec(task("live"), name="one"))
    leader = await here.lead()
    await leader.run()
    await here.submit(run_spec(task("mine"), task("urgent", priority=Priority.HIGH), name="one"))
    here.clock.move(timedelta(hours=1))
    await leader.step("submit", "dispatch")
    found = await explained(here, "mine")
    assert found.turn is not None
    assert [(ahead.name, ahead.why) for ahead in found.turn.first] == [("urgent", "priority high, this one normal")]


@pytest.mark.parametrize(
    ("minutes", "why"),
    [(0, "critical path 10m00s, this one's 5m00s"), (20, "submitted 20m00s earlier")],
)
async def test_an_earlier_submission_and_a_longer_path_are_told_with_their_lengths(
    here: SmallWorld, minutes: int, why: str
) -> None:
    here.set(slots=0)
    leader = await here.lead()
    await here.submit(run_spec(task("first", needs=()), task("behind", needs=("first",)), name="one"))
    await leader.step("submit")
    here.clock.move(timedelta(minutes=minutes))
    await here.submit(run_spec(task("mine"), name="two"))
    await leader.step("submit")
    found = await explained(here, "mine")
    assert found.turn is not None
    assert [(ahead.name, ahead.why) for ahead in found.turn.first if ahead.name == "first"] == [
        ("first", f"its run has the earlier turn: {why}")
    ]


async def test_a_share_is_told_with_its_numbers(here: SmallWorld) -> None:
    here.set(slots=1)
    await here.submit(run_spec(task("live"), task("mine"), name="one"))
    leader = await here.lead()
    await leader.run()
    await here.submit(run_spec(task("other"), name="two"))
    await leader.run()
    turn = (await explained(here, "mine")).turn
    assert turn is not None
    (ahead,) = turn.first
    assert (ahead.name, ahead.why) == ("other", "its run has 0 live agents, this one's 1")


async def test_what_a_task_needs_and_when_it_is_tried_again_are_told(here: SmallWorld) -> None:
    here.host.plays("api", crashes(), crashes(), crashes())
    await here.submit(run_spec(task("api"), task("ui", needs=("api",))))
    leader = await here.lead()
    await leader.run()
    needs = await explained(here, "ui")
    assert _reasons(needs) == [("needs", "it needs api: pending, which waits for retry")]
    assert needs.turn is None
    (again,) = (await explained(here, "api")).reasons
    assert again.rule == "retry"
    assert ", in " in again.changes


async def test_a_pause_and_an_approval_are_told_with_what_to_do(here: SmallWorld) -> None:
    run_id = await here.submit(run_spec(task("ask", approval=True)))
    leader = await here.lead()
    await leader.run()
    await here.ask(Pause(run_id=run_id))
    await leader.run()
    found = await explained(here, "ask")
    assert [(reason.rule, reason.changes.partition(",")[0]) for reason in found.reasons] == [
        ("paused", f"kapelle resume {run_id}"),
        ("approval", f"kapelle approve {found.task.task_id}"),
    ]


async def test_memory_that_is_short_is_told_and_that_it_is_measured_again(here: SmallWorld) -> None:
    here.host.measured = Measure(memory=8 * GB, memory_free=GB, cpus=2.0)
    await here.submit(run_spec(task("big"), configs=(replace(CODER, asks=Asks(memory=2 * GB)),)))
    leader = await here.lead()
    wake = await leader.run()
    assert wake == here.clock.now() + timedelta(seconds=5)
    assert (await here.task("big")).detail == "1 GB of the memory of local is left for agents by measure; coder asks for 2 GB"
    assert [reason.rule for reason in (await explained(here, "big")).reasons] == ["memory"]
    here.host.measured = Measure(memory=8 * GB, memory_free=4 * GB, cpus=2.0)
    here.clock.move(timedelta(seconds=5))
    await leader.run()
    assert [process.task for process in here.host.live()] == ["big"]


async def test_where_a_task_went_is_told_with_what_there_was_to_choose_from(here: SmallWorld) -> None:
    tester = AgentConfig(name="tester", program="line", capabilities=("tests",), limit=1)
    versatile = AgentConfig(name="versatile", program="line", capabilities=("tests", "docs"))
    both = ("versatile", "tester")
    tasks = [task(name, agent="versatile", agents=both, requires=("tests",)) for name in ("a", "b")]
    await here.submit(run_spec(*tasks, configs=(tester, versatile), strategy=Strategy.BEST_FIT))
    leader = await here.lead()
    await leader.run()
    (first,), (second,) = [(await explained(here, name)).decisions for name in ("a", "b")]
    assert sorted([first.config, second.config]) == ["tester", "versatile"]
    later = first if first.config == "versatile" else second
    assert [(each.config, each.refusal) for each in later.considered] == [
        ("versatile", ""),
        ("tester", "1 agent of the kind tester is live, its limit"),
    ]
    assert [attempt.config for attempt in await here.attempts("a")] == [first.config]


def test_a_task_that_waits_and_one_that_was_done_are_explained_in_words_and_as_json(place: Place) -> None:
    flow = """\
        name: flow
        defaults: {agent: script, gate: none}
        tasks:
          base: {prompt: "true", estimate: 10m}
          top: {prompt: "true", needs: base}
        """
    place.write("flow.yml", flow)
    assert place.run("submit", "../flow.yml").code == 0

    waits = place.run("explain", "top", "--json").json
    assert [reason["rule"] for reason in waits["reasons"]] == ["needs", "leader"]
    assert place.run("explain", "base", "--json").json["critical_path_s"] == 900
    told = place.run("explain", "base").out
    assert "critical path: 15m" in told
    assert "leader  nobody leads, so nothing is started  kapelle resume" in told
    assert "Tasks that go first: none" in told

    assert place.run("resume").code == 0
    (placed,) = place.run("explain", "base", "--json").json["placed"]
    assert (placed["agent"], placed["host"], placed["strategy"]) == ("script", "local", "least_loaded")
    assert "attempt 1: script on local" in place.run("explain", "base").out
    run_id = place.run("list", "--json").json[0]["id"]
    assert place.run("explain", run_id).code == 2
