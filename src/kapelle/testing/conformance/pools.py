"""What a store owes of the pool; a part of the suite of ``core.store.Store``."""

from datetime import timedelta

from kapelle.core.frozen import replace
from kapelle.core.ids import AgentId, TaskId
from kapelle.core.pool import Assignment, Spare, SpareState, StandingPool, fit_of, key_of
from kapelle.core.store import Tx
from kapelle.testing.conformance.samples import NOON, some
from kapelle.testing.conformance.tables import comes_back
from kapelle.testing.conformance.transactions import Led, StoreTests


class PoolSuite(StoreTests):
    """Spares and standing pools come back, are all found, and are gone when they were dropped."""

    async def test_a_spare_comes_back(self, led: Led) -> None:
        """With what it was made like, and all of that with the same fit."""
        await comes_back(led, Spare, lambda tx, spare: tx.spares.put(spare), lambda tx, spare: tx.spares.get(spare.agent_id))
        made = replace(some(Spare, examples=1)[0], agent_id=AgentId("g-made"))
        await led.do(lambda tx: tx.spares.put(made))

        def read(tx: Tx) -> None:
            found = tx.spares.get(made.agent_id)
            assert found is not None
            assert fit_of(found.make) == fit_of(made.make)

        await led.do(read)

    async def test_all_spares_are_found_the_oldest_first(self, led: Led) -> None:
        """Until they are dropped; who is asked again in the same transaction knows of it."""
        spares = [
            replace(one, agent_id=AgentId(f"g-{number}"), created_at=NOON + timedelta(seconds=number))
            for number, one in enumerate(some(Spare, examples=3))
        ]

        def work(tx: Tx) -> None:
            for spare in reversed(spares):
                tx.spares.put(spare)
            assert list(tx.spares.all()) == spares
            ending = replace(spares[1], state=SpareState.ENDING)
            tx.spares.put(ending)
            assert list(tx.spares.all()) == [spares[0], ending, spares[2]]
            tx.spares.drop(ending.agent_id)
            assert list(tx.spares.all()) == [spares[0], spares[2]]
            assert tx.spares.get(ending.agent_id) is None

        await led.do(work)

        def later(tx: Tx) -> None:
            assert list(tx.spares.all()) == [spares[0], spares[2]]

        await led.do(later)

    async def test_a_standing_pool_comes_back(self, led: Led) -> None:
        """There is one for each config of a project, and the last word holds."""
        pools = [
            replace(one, key=key_of(project, config), project=project, config=config)
            for one, (project, config) in zip(
                some(StandingPool, examples=3), [("a", "one"), ("a", "two"), ("b", "one")], strict=True
            )
        ]

        def work(tx: Tx) -> None:
            for pool in reversed(pools):
                tx.spares.put_standing(pool)
            changed = replace(pools[0], wanted=7)
            tx.spares.put_standing(changed)
            assert list(tx.spares.standing()) == [changed, pools[1], pools[2]]
            tx.spares.drop_standing(pools[1].key)
            tx.spares.drop_standing(pools[1].key)
            assert list(tx.spares.standing()) == [changed, pools[2]]

        await led.do(work)

    async def test_an_assignment_comes_back(self, led: Led) -> None:
        """The last word of a person holds, until it is forgotten."""
        given = [
            replace(one, task_id=TaskId(f"t-{number}"), at=NOON + timedelta(seconds=number))
            for number, one in enumerate(some(Assignment, examples=3))
        ]

        def work(tx: Tx) -> None:
            for assignment in reversed(given):
                tx.spares.assign(assignment)
            changed = replace(given[0], config="other")
            tx.spares.assign(changed)
            assert list(tx.spares.assignments()) == [changed, *given[1:]]
            tx.spares.unassign(given[1].task_id)
            tx.spares.unassign(given[1].task_id)
            assert list(tx.spares.assignments()) == [changed, given[2]]

        await led.do(work)
