"""What a store knows of brakes: spent budgets and the off switch."""

from collections.abc import Sequence
from datetime import timedelta

from kapelle.core.frozen import replace
from kapelle.core.halt import Halt
from kapelle.core.ids import HaltId, SpentId
from kapelle.core.spent import SpentBudget
from kapelle.core.store import Tx
from kapelle.testing.conformance.samples import NOON, some
from kapelle.testing.conformance.tables import comes_back
from kapelle.testing.conformance.transactions import Led, StoreTests


class BrakeSuite(StoreTests):
    """Spent budgets come back as they were, those that are over are not in the way, and one halt stands at a time."""

    async def test_a_spent_budget_comes_back(self, led: Led) -> None:
        """Whole, and among those that are not over when it is not."""

        def get(tx: Tx, spent: SpentBudget) -> SpentBudget | None:
            assert (spent in tx.brakes.spent()) is (spent.over_at is None)
            return tx.brakes.get_spent(spent.spent_id)

        await comes_back(led, SpentBudget, lambda tx, spent: tx.brakes.put_spent(spent), get)

    async def test_a_spent_budget_is_replaced(self, led: Led) -> None:
        """By another with its id."""

        def work(tx: Tx) -> None:
            for spent in (replace(each, spent_id=SpentId("b-1")) for each in some(SpentBudget)):
                tx.brakes.put_spent(spent)
                assert tx.brakes.get_spent(SpentId("b-1")) == spent

        await led.do(work)

    async def test_the_oldest_comes_first(self, led: Led) -> None:
        """And ids are found by their beginning, the newest first, two at most."""
        (sample,) = some(SpentBudget, examples=1)
        rows = [
            replace(sample, spent_id=SpentId(f"b-x{number}"), asked_at=NOON + timedelta(minutes=number), over_at=None)
            for number in (2, 0, 1)
        ]

        def work(tx: Tx) -> None:
            for row in rows:
                tx.brakes.put_spent(row)

        await led.do(work)

        def names(found: Sequence[SpentBudget]) -> list[str]:
            return [row.spent_id for row in found if row.spent_id.startswith("b-x")]

        assert names(await led.read(lambda view: view.brakes.spent())) == ["b-x0", "b-x1", "b-x2"]
        assert names(await led.read(lambda view: view.brakes.find_spent("b-x"))) == ["b-x2", "b-x1"]
        assert names(await led.read(lambda view: view.brakes.find_spent("b-x1"))) == ["b-x1"]
        assert list(await led.read(lambda view: view.brakes.find_spent("b-%"))) == []
        assert await led.read(lambda view: view.brakes.get_spent(SpentId("b-none"))) is None

    async def test_a_halt_stands_until_it_is_lifted(self, led: Led) -> None:
        """And those of the past do not."""
        assert await led.read(lambda view: view.brakes.halt()) is None
        first = Halt(halt_id=HaltId("h-1"), by="person:you", reason="night", began_at=NOON)
        await led.do(lambda tx: tx.brakes.put_halt(first))
        assert await led.read(lambda view: view.brakes.halt()) == first
        lifted = replace(first, lifted_at=NOON + timedelta(hours=1), lifted_by="person:me")
        await led.do(lambda tx: tx.brakes.put_halt(lifted))
        assert await led.read(lambda view: view.brakes.halt()) is None
        second = replace(first, halt_id=HaltId("h-2"))

        def halt(tx: Tx) -> None:
            assert tx.brakes.halt() is None
            tx.brakes.put_halt(second)
            assert tx.brakes.halt() == second

        await led.do(halt)
        assert await led.read(lambda view: view.brakes.halt()) == second
