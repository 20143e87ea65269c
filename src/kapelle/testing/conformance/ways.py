"""The suite of the ways out: ``core.ports.Ways``."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from kapelle.core.frozen import replace
from kapelle.core.ids import RunId, TaskId
from kapelle.core.isolation import Network, NetworkKind
from kapelle.core.network import Decision, Destination, Pass
from kapelle.core.ports import Ways

SPARE = Pass(key="g-1", run_id=RunId(""), task_id=None, network=Network(kind=NetworkKind.ALLOW))
TASK = replace(SPARE, run_id=RunId("r-1"), task_id=TaskId("t-1"))
SOMEWHERE = Destination(host="nobody.example", port=443)


class WaysSuite(ABC):
    """Who is let through, and who that is told of."""

    @abstractmethod
    def make(self) -> Ways:
        """Return the ways; nothing is open yet."""

    @abstractmethod
    async def knock(self, ways: Ways, folder: str, to: Destination) -> None:
        """Want to go *to* somewhere by the way in *folder*, and wait for the refusal."""

    @pytest.fixture
    async def ways(self) -> AsyncGenerator[Ways]:
        """Give the ways, and close all of them."""
        made = self.make()
        yield made
        await made.stop()

    @pytest.fixture
    def told(self, ways: Ways) -> list[Decision]:
        """Give all decisions that are told."""
        found: list[Decision] = []
        ways.listen(found.append)
        return found

    async def test_a_decision_is_told_once_and_then_by_number(self, ways: Ways, told: list[Decision], tmp_path: Path) -> None:
        """Nobody can fill the log by asking."""
        way = await ways.open(TASK, str(tmp_path / "ways"))
        for _ in range(3):
            await self.knock(ways, way.folder, SOMEWHERE)
        await ways.open(TASK, str(tmp_path / "ways"))
        assert [(each.holder, each.to, each.times) for each in told] == [(TASK, SOMEWHERE, 1)]
        await ways.close(TASK.key)
        await ways.close(TASK.key)
        assert [each.times for each in told] == [1, 2]

    async def test_a_way_that_another_takes_over_stays_where_it_is(
        self, ways: Ways, told: list[Decision], tmp_path: Path
    ) -> None:
        """What is decided then is told of that one, however often it was decided for the one before."""
        first = await ways.open(SPARE, str(tmp_path / "ways"))
        for _ in range(2):
            await self.knock(ways, first.folder, SOMEWHERE)
        then = await ways.open(TASK, str(tmp_path / "another"))
        assert then.folder == first.folder
        assert [(each.holder, each.times) for each in told] == [(SPARE, 1), (SPARE, 1)]
        await self.knock(ways, then.folder, SOMEWHERE)
        assert (told[-1].holder, told[-1].to, told[-1].times) == (TASK, SOMEWHERE, 1)

    async def test_who_may_call_its_model_now_finds_the_way_to_it(self, ways: Ways, tmp_path: Path) -> None:
        """By its port at the gateway, which may be another than before."""
        assert (await ways.open(SPARE, str(tmp_path / "ways"))).model is None
        for port in (4000, 4001):
            way = await ways.open(replace(TASK, model=port), str(tmp_path / "ways"))
            assert way.model == port
            await self.reaches_its_model(way.folder)

    @abstractmethod
    async def reaches_its_model(self, folder: str) -> None:
        """See that the way in *folder* leads to the gateway, where there is one to look at."""
