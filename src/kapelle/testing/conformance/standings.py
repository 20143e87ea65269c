"""What a store owes of how agents stand, and of alerts; a part of the suite of ``core.store.Store``."""

from kapelle.core.frozen import replace
from kapelle.core.ids import AttemptId
from kapelle.core.liveness import Standing
from kapelle.core.standings import Alert
from kapelle.core.store import Tx
from kapelle.testing.conformance.samples import some
from kapelle.testing.conformance.tables import comes_back
from kapelle.testing.conformance.transactions import Led, StoreTests


class StandingSuite(StoreTests):
    """They come back, are replaced, and are forgotten."""

    async def test_how_an_agent_stands_comes_back(self, led: Led) -> None:
        """In every field; the newest stands for the attempt."""
        await comes_back(
            led,
            Standing,
            lambda tx, standing: tx.standings.put(standing),
            lambda tx, standing: tx.standings.get(standing.attempt_id),
        )

    async def test_all_are_told_by_attempt_and_forgotten_one_by_one(self, led: Led) -> None:
        """One for each attempt."""
        standings = [replace(one, attempt_id=AttemptId(f"a-{number}")) for number, one in enumerate(some(Standing, examples=3))]

        def work(tx: Tx) -> None:
            for standing in reversed(standings):
                tx.standings.put(standing)
            assert list(tx.standings.all()) == standings
            tx.standings.drop(AttemptId("a-1"))
            tx.standings.drop(AttemptId("a-1"))
            assert list(tx.standings.all()) == [standings[0], standings[2]]
            assert tx.standings.get(AttemptId("a-1")) is None

        await led.do(work)

    async def test_an_alert_is_there_until_it_is_cleared(self, led: Led) -> None:
        """One of each name and project."""
        first, second, third = (replace(one, name="disk", project=f"p{n}") for n, one in enumerate(some(Alert, examples=3)))

        def work(tx: Tx) -> None:
            for alert in (third, first, second, replace(second, value=2.0)):
                tx.standings.raise_alert(alert)
            assert list(tx.standings.alerts()) == [first, replace(second, value=2.0), third]
            tx.standings.clear_alert("disk", "p1")
            tx.standings.clear_alert("disk", "p1")
            assert list(tx.standings.alerts()) == [first, third]

        await led.do(work)
