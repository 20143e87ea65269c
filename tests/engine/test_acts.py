"""Acts and the loop: what a stage has started, and when it is stepped again."""

import asyncio
from datetime import datetime, timedelta

import pytest

from kapelle.core.store import Tx
from kapelle.engine.acts import Acts, Finding
from kapelle.engine.loop import HEAL, SOON, Loop
from kapelle.testing.clock import HandClock


class Held:
    """An act that waits to be let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()

    async def __call__(self, finding: Finding | None = None) -> Finding | None:
        self.begun += 1
        await self.go.wait()
        return finding


def finding(_: Tx) -> None:
    """Write nothing down."""


async def test_a_second_act_under_the_same_key_is_not_started() -> None:
    held = Held()
    async with asyncio.TaskGroup() as group:
        acts = Acts(group, lambda: None, lambda: None)
        assert acts.start("key", held())
        assert not acts.start("key", held())
        assert acts.start("other", held())
        held.go.set()
    assert held.begun == 2


async def test_a_key_is_taken_until_its_finding_is() -> None:
    held = Held()
    held.go.set()
    async with asyncio.TaskGroup() as group:
        acts = Acts(group, lambda: None, lambda: None)
        acts.start("key", held(finding))
        await acts.settled()
        assert acts.running("key")
        assert acts.take() == [finding]
        assert not acts.running("key")
        assert acts.take() == []


@pytest.mark.parametrize(("found", "wakes"), [(finding, "now"), (None, "soon")])
async def test_an_act_that_ends_wakes_the_loop(found: Finding | None, wakes: str) -> None:
    woken: list[str] = []
    held = Held()
    held.go.set()
    async with asyncio.TaskGroup() as group:
        acts = Acts(group, lambda: woken.append("now"), lambda: woken.append("soon"))
        acts.start("key", held(found))
        await acts.settled()
        assert woken == [wakes]
        assert not acts.running("other")
        assert acts.take() == ([] if found is None else [found])
        assert not acts.running("key")
        assert acts.pressing == (found is not None)


async def test_what_is_urgent_presses_until_it_is_written_down() -> None:
    async with asyncio.TaskGroup() as group:
        acts = Acts(group, lambda: None, lambda: None)
        acts.report(finding, urgent=False)
        taken = acts.take()
        assert not acts.pressing
        acts.give_back(taken)
        acts.report(finding)
        taken = acts.take()
        assert acts.pressing
        acts.give_back(taken)
        assert acts.take() == [finding, finding]
        assert acts.pressing
        assert acts.take() == []
        assert not acts.pressing


async def test_what_has_time_wakes_the_loop_soon() -> None:
    woken: list[str] = []
    async with asyncio.TaskGroup() as group:
        acts = Acts(group, lambda: woken.append("now"), lambda: woken.append("soon"))
        acts.report(lambda _: None, urgent=False)
        acts.report(lambda _: None)
    assert woken == ["soon", "now"]
    assert len(acts.take()) == 2


async def test_what_a_going_act_reports_can_be_taken_before_it_ends() -> None:
    held = Held()
    async with asyncio.TaskGroup() as group:
        acts = Acts(group, lambda: None, lambda: None)
        acts.start("key", held())
        acts.report(finding)
        assert acts.take() == [finding]
        assert acts.running("key")
        held.go.set()


async def test_findings_that_are_given_back_come_before_later_ones() -> None:
    def later(_: Tx) -> None:
        """Write nothing down either."""

    async with asyncio.TaskGroup() as group:
        acts = Acts(group, lambda: None, lambda: None)
        acts.report(finding)
        taken = acts.take()
        acts.report(later)
        acts.give_back(taken)
        assert acts.take() == [finding, later]


async def test_one_act_can_be_broken_off_and_all_can() -> None:
    held = Held()
    async with asyncio.TaskGroup() as group:
        acts = Acts(group, lambda: None, lambda: None)
        for key in ("a", "b", "c"):
            acts.start(key, held())
        acts.cancel_all(lambda key: key == "a")
        await asyncio.sleep(0)
        assert held.begun == 2
        acts.cancel_all()
        await acts.settled()
    assert not held.go.is_set()


async def test_an_act_that_fails_ends_the_leader_it_belongs_to() -> None:
    async def fails() -> None:
        raise ValueError("a defect")

    with pytest.RaisesGroup(ValueError):
        async with asyncio.TaskGroup() as group:
            Acts(group, lambda: None, lambda: None).start("key", fails())


class Counted:
    """A stage that remembers its steps."""

    name = "counted"

    def __init__(self, wake: timedelta | None, clock: HandClock) -> None:
        self._wake = wake
        self._clock = clock
        self.steps: list[datetime] = []
        self.stepped = asyncio.Event()

    async def step(self, now: datetime) -> datetime | None:
        self.steps.append(now)
        self.stepped.set()
        return None if self._wake is None else now + self._wake


async def test_the_loop_steps_its_stages_in_order_until_it_is_over() -> None:
    clock = HandClock()
    first, second = Counted(timedelta(0), clock), Counted(None, clock)
    await Loop(clock).run(lambda: [first, second], lambda: len(second.steps) == 3)
    assert len(first.steps) == len(second.steps) == 3


async def test_the_first_error_of_a_stage_ends_the_loop_as_it_is() -> None:
    class Fails:
        name = "fails"

        async def step(self, now: datetime) -> datetime | None:
            raise ValueError(now)

    clock = HandClock()
    with pytest.raises(ValueError, match="2"):
        await Loop(clock).run(lambda: [Counted(None, clock), Fails(), Fails()], lambda: False)


async def test_whoever_waits_for_a_pass_goes_on_after_it() -> None:
    clock = HandClock()
    loop, stage = Loop(clock), Counted(timedelta(hours=1), clock)
    async with asyncio.TaskGroup() as group:
        waits = group.create_task(loop.passed())
        group.create_task(loop.run(lambda: [stage], waits.done))
        await waits
        assert len(stage.steps) == 1
        loop.wake()


async def test_the_loop_is_woken_by_a_hint() -> None:
    clock = HandClock()
    stage = Counted(timedelta(hours=1), clock)
    loop = Loop(clock)
    async with asyncio.timeout(HEAL.total_seconds() / 2), asyncio.TaskGroup() as group:
        group.create_task(loop.run(lambda: [stage], lambda: len(stage.steps) == 2))
        await stage.stepped.wait()
        loop.wake()


async def test_what_has_time_is_looked_at_in_one_pass_and_not_at_once() -> None:
    clock, running = HandClock(), asyncio.get_running_loop()
    stage = Counted(timedelta(hours=1), clock)
    loop = Loop(clock)
    async with asyncio.timeout(HEAL.total_seconds() / 2), asyncio.TaskGroup() as group:
        group.create_task(loop.run(lambda: [stage], lambda: len(stage.steps) == 2))
        await stage.stepped.wait()
        begun = running.time()
        for _ in range(20):
            loop.wake_soon()
            await asyncio.sleep(0)
            assert len(stage.steps) == 1 or running.time() - begun >= SOON
    assert running.time() - begun >= SOON


async def test_what_is_urgent_takes_what_has_time_with_it() -> None:
    clock, over = HandClock(), asyncio.Event()
    stage = Counted(timedelta(hours=1), clock)
    loop = Loop(clock)
    async with asyncio.timeout(HEAL.total_seconds() / 2), asyncio.TaskGroup() as group:
        group.create_task(loop.run(lambda: [stage], over.is_set))
        await stage.stepped.wait()
        loop.wake_soon()
        passed = group.create_task(loop.passed())
        loop.wake()
        await passed
        assert len(stage.steps) == 2
        # Had it stayed, it would wake the loop before this does.
        asyncio.get_running_loop().call_later(2 * SOON, over.set)
        await over.wait()
        assert len(stage.steps) == 2
        loop.wake()


async def test_a_hint_that_was_lost_is_made_good_within_a_second() -> None:
    clock = HandClock()
    stage = Counted(timedelta(hours=1), clock)
    begun = asyncio.get_running_loop().time()
    await Loop(clock).run(lambda: [stage], lambda: len(stage.steps) == 2)
    assert asyncio.get_running_loop().time() - begun == pytest.approx(HEAL.total_seconds(), abs=0.5)


async def test_a_loop_that_is_over_takes_no_further_step() -> None:
    stage = Counted(None, HandClock())
    await Loop(HandClock()).run(lambda: [stage], lambda: True)
    assert stage.steps == []
