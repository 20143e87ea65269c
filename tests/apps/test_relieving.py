"""When a process that leads is ended by another: when it shows no sign of life, whatever the clock on the wall says."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kapelle.apps.desk import Desk
from kapelle.core.agent import ProcessRef
from kapelle.engine.leader import Engine
from kapelle.testing.worlds import SmallWorld, world

LEADER = ProcessRef(boot_id="boot", pid=1, started="leader")


class Follower:
    """A desk beside somebody else's lead, with a count of its own."""

    def __init__(self, here: SmallWorld, term: int) -> None:
        self.here, self.term = here, term
        self.count = 0.0
        self.ended: list[ProcessRef] = []
        self.desk = Desk(
            replace(here.ports, settings=replace(here.ports.settings, lead_timeout=timedelta(seconds=30))),
            here.leadership,
            Engine(here.ports, here.leadership, LEADER),
            alive=lambda _: True,
            end_process=self.ended.append,
            back_up=nothing,
            backup_every=timedelta(hours=1),
            steady=lambda: self.count,
            while_leading=nullcontext,
        )

    async def looks_after(self, seconds: float) -> list[ProcessRef]:
        self.count += seconds
        await self.desk._relieve()
        return self.ended

    async def leader_lives(self) -> None:
        await self.here.leadership.renew(self.term, self.here.clock.now())


async def nothing() -> None:
    return


@pytest.fixture
async def follower(tmp_path: Path) -> AsyncIterator[Follower]:
    async with world(tmp_path) as here:
        term = await here.leadership.take(LEADER, here.clock.now())
        assert term is not None
        follower = Follower(here, term)
        await follower.looks_after(0)
        yield follower


async def test_a_leader_without_a_sign_of_life_is_ended(follower: Follower) -> None:
    assert await follower.looks_after(29) == []
    assert await follower.looks_after(2) == [LEADER]


async def test_a_leader_that_lives_is_left_alone_when_the_clock_is_set_forward_by_a_day(follower: Follower) -> None:
    follower.here.clock.jump(timedelta(days=1))
    assert await follower.looks_after(4) == []
    await follower.leader_lives()
    assert await follower.looks_after(28) == []
    follower.here.clock.move(timedelta(seconds=5))
    await follower.leader_lives()
    assert await follower.looks_after(28) == []


async def test_a_leader_that_is_stopped_is_ended_though_the_clock_was_set_back_by_an_hour(follower: Follower) -> None:
    follower.here.clock.jump(timedelta(hours=-1))
    assert await follower.looks_after(31) == [LEADER]


async def test_a_lead_that_was_given_back_is_nobodys_to_end(follower: Follower) -> None:
    await follower.here.leadership.give_up(follower.term)
    assert await follower.looks_after(31) == []
    assert await follower.looks_after(31) == []
