"""Bounds that raise an alert: once when they are passed by, and once when they hold again."""

from datetime import timedelta

import pytest

from kapelle.core.alerting import Measured, bounds
from kapelle.core.liveness_events import AlertCleared, AlertRaised
from kapelle.core.ports import Measure
from kapelle.core.standings import AlertLimits
from kapelle.testing.factories import run_spec, task
from kapelle.testing.hosts import writes
from kapelle.testing.worlds import SmallWorld

BEAT = timedelta(seconds=30)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _looked_after(here: SmallWorld) -> None:
    here.set(heartbeat=BEAT, slots=1)


async def alerts(here: SmallWorld) -> list[str]:
    return [alert.name for alert in await here.store.read(lambda view: view.standings.alerts())]


async def test_a_task_that_waits_for_too_long_raises_an_alert_once(here: SmallWorld) -> None:
    await here.submit(run_spec(task("one"), task("two"), project="shop", alerts=AlertLimits(queue_age=2 * MINUTE)))
    leader = await here.lead()
    await leader.run()
    for _ in range(10):
        here.clock.move(BEAT)
        await leader.run()
    (raised,) = await here.events(AlertRaised)
    assert (raised.alert, raised.limit) == ("queue_age", 120.0)
    assert raised.told == "a task that could run waits for 2m30s already (the bound is 2m00s)"
    assert await alerts(here) == ["queue_age"]
    writes({"one.py": "1"})(here.host.live()[0], "")
    await leader.run()
    here.clock.move(BEAT)
    await leader.run()
    assert [event.alert for event in await here.events(AlertCleared)] == ["queue_age"]
    assert await alerts(here) == []


async def test_what_the_machine_lacks_raises_an_alert_until_nobody_asks_any_more(here: SmallWorld) -> None:
    here.host.measured = Measure(memory=100, memory_free=5, cpus=1.0, disk=100, disk_free=50)
    limits = AlertLimits(memory_free=10, disk_free=10)
    await here.submit(run_spec(task("one"), project="shop", alerts=limits))
    leader = await here.lead()
    await leader.run()
    assert [event.alert for event in await here.events(AlertRaised)] == ["memory_free"]
    writes({"one.py": "1"})(here.process("one"), "")
    await leader.run()
    here.clock.move(BEAT)
    await leader.run()
    assert [event.alert for event in await here.events(AlertCleared)] == ["memory_free"]


async def test_what_was_told_is_not_told_again_by_the_next_leader(here: SmallWorld) -> None:
    """Who has just begun to lead has not measured the machine yet."""
    here.host.measured = Measure(memory=100, memory_free=5, cpus=1.0, disk=100, disk_free=5)
    limits = AlertLimits(memory_free=10, disk_free=10, queue_age=MINUTE)
    await here.submit(run_spec(task("one"), task("two"), project="shop", alerts=limits))
    leader = await here.lead()
    await leader.run()
    here.clock.move(2 * MINUTE)
    await leader.run()
    since = {alert.name: alert.raised_at for alert in await here.store.read(lambda view: view.standings.alerts())}
    assert set(since) == {"memory_free", "disk_free", "queue_age"}
    for _ in range(2):
        await leader.die()
        leader = await here.lead()
        await leader.run()
        here.clock.move(BEAT)
        await leader.run()
    assert len(await here.events(AlertRaised)) == 3
    assert await here.events(AlertCleared) == []
    assert since == {alert.name: alert.raised_at for alert in await here.store.read(lambda view: view.standings.alerts())}


async def test_money_that_is_spent_too_fast_raises_an_alert(here: SmallWorld) -> None:
    await here.submit(run_spec(task("one"), project="shop", alerts=AlertLimits(spend_per_hour=2.0)))
    leader = await here.lead()
    await leader.run()
    here.gateway.call(here.process("one").token, usd=3.0)
    await leader.run()
    here.clock.move(BEAT)
    await leader.run()
    assert [event.alert for event in await here.events(AlertRaised)] == ["spend_per_hour"]


async def test_who_set_no_bounds_is_told_nothing_and_woken_for_nothing(here: SmallWorld) -> None:
    here.host.measured = Measure(memory=100, memory_free=0, cpus=1.0)
    await here.submit(run_spec(task("one")))
    leader = await here.lead()
    await leader.run()
    assert await leader.step("alerts") is None
    assert await here.events(AlertRaised) == []


@pytest.mark.parametrize(
    ("limits", "found", "passed"),
    [
        (AlertLimits(failures=0.3), Measured(failed=2, ended=5), True),
        (AlertLimits(failures=0.5), Measured(failed=2, ended=5), False),
        (AlertLimits(failures=0.3), Measured(failed=4, ended=4), False),
        (AlertLimits(failures=0.3), Measured(), False),
        (AlertLimits(queue_age=MINUTE), Measured(queue_age=MINUTE), False),
        (AlertLimits(disk_free=10), Measured(disk_free=9), True),
        (AlertLimits(disk_free=10), Measured(disk_free=10), False),
        (AlertLimits(spend_per_hour=1.0), Measured(spent_in_an_hour=1.01), True),
    ],
)
def test_a_bound_is_passed_by_or_holds(limits: AlertLimits, found: Measured, passed: bool) -> None:
    (bound,) = bounds(limits, found)
    assert bound.passed is passed


def test_what_was_not_measured_has_no_bound() -> None:
    assert list(bounds(AlertLimits(disk_free=10, memory_free=10), Measured())) == []
    assert not AlertLimits().given
    assert AlertLimits(failures=0.1).given
