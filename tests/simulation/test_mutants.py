"""A test of the test: a bug of each kind is planted, and the simulation finds it, soon.

A mutant is a port that does less than it owes, put round the world's own by ``Simulation.compose``.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st

from kapelle.core.agent import ProcessRef
from kapelle.core.budget import Allowance
from kapelle.core.calls import ModelCall
from kapelle.core.hiding import NOTHING, Hiding
from kapelle.core.ids import WorkspaceId
from kapelle.core.ports import CommandResult, Launch
from kapelle.core.store import Store, Tx
from kapelle.core.task import TaskSpec
from kapelle.testing.living import PRICE, STAGES
from kapelle.testing.simulation import Simulation, simulate

WORLDS = 100
"""So many worlds may pass before the bug must have shown itself."""


class Round:
    """Something that is like another but for what a subclass says."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Unfenced(Round):
    """A store that takes the writes of whoever comes."""

    def __init__(self, inner: Store, simulation: Simulation) -> None:
        super().__init__(inner)
        self._leadership = simulation.here.leadership

    async def transact(self, work: Callable[[Tx], Any], *, term: int) -> Any:
        lead = await self._leadership.holder()
        return await self._inner.transact(work, term=term if lead is None else lead.term)


class EventsApart(Round):
    """A store that writes events down in a transaction of their own, after the state."""

    class Silent(Round):
        def __init__(self, inner: Tx, events: list[Any]) -> None:
            super().__init__(inner)
            self._events = events

        def log(self, *events: Any) -> None:
            self._events.extend(events)

    async def transact(self, work: Callable[[Tx], Any], *, term: int) -> Any:
        events: list[Any] = []
        answer = await self._inner.transact(lambda tx: work(self.Silent(tx, events)), term=term)
        if events:
            await self._inner.transact(lambda tx: tx.log(*events), term=term)
        return answer


class QueueBackwards(Round):
    """A store in which the last in the merge queue is the first."""

    class Backwards(Round):
        @property
        def changes(self) -> Any:
            return QueueBackwards.Changes(self._inner.changes)

    class Changes(Round):
        def queued(self) -> Sequence[Any]:
            return [replace(change, rank=-change.rank) for change in self._inner.queued()]

        def put(self, change: Any) -> None:
            # The bug is in the order alone: what is written down is as it was.
            self._inner.put(replace(change, rank=abs(change.rank)))

    async def transact(self, work: Callable[[Tx], Any], *, term: int) -> Any:
        return await self._inner.transact(lambda tx: work(self.Backwards(tx)), term=term)


class Ungated(Round):
    """A host that says of every check of a merged tree that it passed, and runs none."""

    async def run(self, launch: Launch, output_path: str, on_output: Any = None) -> CommandResult:
        if "/gate-" not in launch.cwd:
            return await self._inner.run(launch, output_path, on_output)
        return CommandResult(exit_code=0, timed_out=False, seconds=0.0, output_path=output_path, output_hash="", tail="")


class Forgiving(Round):
    """A host that finds nothing to reap."""

    async def leftovers(
        self, store_id: str, workspaces: Collection[WorkspaceId] | None = None, *, living: Collection[ProcessRef] = ()
    ) -> Sequence[ProcessRef]:
        return []


class Careless(Round):
    """Workspaces that keep nothing before they go."""

    async def snapshot(self, path: str, repository: str, ref: str, hiding: Hiding = NOTHING) -> str | None:
        return None


class Generous(Round):
    """A gateway that asks nobody whether there is money left."""

    class Meter(Round):
        def admit(self, call: ModelCall) -> None:
            return None

    async def start(self, meter: Any) -> str:
        return await self._inner.start(self.Meter(meter))


class Hasty(Round):
    """A gateway that does not ask again before it sends what was let through a while ago."""

    class Meter(Round):
        def still(self, call_id: str) -> None:
            return None

    async def start(self, meter: Any) -> str:
        return await self._inner.start(self.Meter(meter))


class FencingRemoved(Simulation):
    def compose(self) -> None:
        self.here.replace(store=Unfenced(self.here.store, self))

    def heal(self) -> None:
        """Let it happen at the end of each world: few come to it by themselves."""
        self.wake_an_old_leader(list(STAGES), 1, works=True)
        super().heal()


class EventOutsideTheTransaction(Simulation):
    def compose(self) -> None:
        self.here.replace(store=EventsApart(self.here.store))


class MergeOutOfOrder(Simulation):
    def compose(self) -> None:
        self.here.replace(store=QueueBackwards(self.here.store))


class MergeWithoutGate(Simulation):
    def compose(self) -> None:
        self.here.replace(host=Ungated(self.here.host))


class SnapshotSkipped(Simulation):
    def compose(self) -> None:
        self.here.replace(workspaces=Careless(self.workspaces))


class NobodyReaped(Simulation):
    def compose(self) -> None:
        self.here.replace(host=Forgiving(self.here.host))


class BudgetNotAsked(Simulation):
    def compose(self) -> None:
        self.here.replace(gateway=Generous(self.here.gateway))

    def some_spec(self, data: st.DataObject, name: str, earlier: list[str]) -> TaskSpec:
        """Let everybody have a budget: what is looked for is what becomes of it."""
        return replace(super().some_spec(data, name, earlier), budget=Allowance(usd=PRICE))

    def heal(self) -> None:
        """Let it happen at the end of each world, and be looked for, before everything is raised."""
        for process in self.at_work():
            self.call_the_model(process, 6)
            self.everything_holds()
        super().heal()


class NotAskedAgain(Simulation):
    def compose(self) -> None:
        self.here.replace(gateway=Hasty(self.here.gateway))

    def heal(self) -> None:
        """Let it happen at the end of each world: few come to it by themselves."""
        for process in self.at_work():
            self.let_a_call_wait(process, ("submit",), halts=True)
        super().heal()


@pytest.mark.parametrize(
    ("mutant", "found"),
    [
        (FencingRemoved, "an old leader was not refused"),
        (EventOutsideTheTransaction, "the log says|says that it was"),
        (MergeOutOfOrder, "which was ahead of it in the queue"),
        (MergeWithoutGate, "never passed"),
        (SnapshotSkipped, "is kept nowhere"),
        (NobodyReaped, "nobody knows the process of"),
        (BudgetNotAsked, "has spent"),
        (NotAskedAgain, "a call went out, and everything is halted"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "it",
)
def test_a_planted_bug_is_found(mutant: type[Simulation], found: str) -> None:
    with pytest.raises(AssertionError, match=found):
        simulate(mutant, worlds=WORLDS)
