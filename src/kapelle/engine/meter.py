"""The meter: what has been spent, kept in memory so that the gateway can ask before every single call.

Totals are read from the store when the lead is taken, calls are added as they end, and the execute stage writes them down
with its next transaction. A budget is thus never passed by more than the calls that were in flight when it was reached.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from kapelle.core.account import Account
from kapelle.core.budget import Level, Resource, Spend, exhausted, levels, nearly
from kapelle.core.calls import ModelCall, Refusal
from kapelle.core.conversation import Trouble
from kapelle.core.event import Event
from kapelle.core.events import BudgetReached, BudgetWarned, ModelCalled
from kapelle.core.ids import AccountId, AgentId
from kapelle.core.isolation_events import LimitMet
from kapelle.core.store import Tx, View
from kapelle.engine.accounts import refusal_of
from kapelle.engine.purses import Purse, keys_of, run_key, spend_of, sum_up, task_key


class EngineMeter:
    """See ``core.gateway.Meter``; all in the leader's event loop."""

    def __init__(self, wake: Callable[[], None], now: Callable[[], datetime]) -> None:
        self._wake = wake
        self._now = now
        self._spent: dict[str, Spend] = {}
        """What was spent, by what it is added up under; calls that are not written down yet too."""
        self._purses: dict[AgentId, Purse] = {}
        self._calls: list[ModelCall] = []
        self._facts: list[Event] = []
        self._crowded: set[tuple[AgentId, str]] = set()
        """Agents that were told of already, and what of them."""
        self._said: set[tuple[type[Event], str, Resource]] = set()
        """What was told of which budgets."""
        self._unpriced: dict[AgentId, str] = {}
        """Agents that were seen to call a model whose price is not known, and which."""
        self._shut: dict[AccountId, Refusal] = {}
        """Accounts that are shut by what stands in the store."""
        self._just_shut: dict[AccountId, Refusal] = {}
        """Those whose refusal was heard and is not written down yet."""

    def load(self, view: View) -> None:
        """Take the totals of all runs that have not ended from the store."""
        spends = view.ledger.by_run()
        for run in view.runs.open():
            worked = view.agents.worked(run.run_id)
            parts = view.ledger.by_task(run.run_id)
            for task_id in {*worked, *parts}:
                time = Spend(time=worked.get(task_id, timedelta(0)))
                self._spent[task_key(task_id)] = parts.get(task_id, Spend()) + time
            total = Spend(time=sum(worked.values(), timedelta(0)))
            self._spent[run_key(run.run_id)] = spends.get(run.run_id, Spend()) + total

    def unknown(self, view: View, purses: Iterable[Purse]) -> dict[str, Spend]:
        """Return what stands in the store for those budgets of *purses* that this meter does not know yet; see ``know``."""
        now = self._now()
        return {
            key: spend
            for purse in purses
            if any(budget.key not in self._spent for budget in purse.budgets(now))
            for key, spend in sum_up(view, purse, now).items()
        }

    def know(self, totals: Mapping[str, Spend]) -> None:
        """Take in what ``unknown`` has found in a transaction that is committed."""
        now = self._now()
        for key, total in totals.items():
            if key in self._spent:
                continue
            # What was called since is not in the store.
            since = (spend_of(call) for call in self._calls if key in keys_of(call, now))
            self._spent[key] = sum(since, total)

    def open(self, agent_id: AgentId, purse: Purse) -> None:
        """Let the calls of an agent be counted against the budgets of *purse*."""
        self._purses[agent_id] = purse
        for key in (task_key(purse.task_id), run_key(purse.run_id)):
            self._spent.setdefault(key, Spend())

    def close(self, agent_id: AgentId) -> None:
        """Forget an agent; what it spent stays."""
        purse = self._purses.pop(agent_id, None)
        if purse is not None:
            time = Spend(time=self._now() - purse.began_at)
            for key in (task_key(purse.task_id), run_key(purse.run_id)):
                self._spent[key] = self._spent.get(key, Spend()) + time
        self._unpriced.pop(agent_id, None)
        self._crowded = {told for told in self._crowded if told[0] != agent_id}

    @property
    def purses(self) -> Collection[Purse]:
        """The purses of all agents whose calls are counted."""
        return self._purses.values()

    def admit(self, agent_id: AgentId) -> Refusal | None:
        """See ``core.gateway.Meter``."""
        purse = self._purses.get(agent_id)
        if purse is None:
            return Refusal(trouble=Trouble.BUDGET, message="this agent has been stopped")
        if held := self._just_shut.get(purse.account_id) or self._shut.get(purse.account_id):
            return held
        poor = self._poor(agent_id, purse)
        return None if poor is None else Refusal(trouble=Trouble.BUDGET, message=poor)

    def hold(self, accounts: Mapping[AccountId, Account]) -> None:
        """Let no call of those of *accounts* through that are shut, by what stands in the store now."""
        self._shut = {account_id: refusal_of(found) for account_id, found in accounts.items() if found.shut}
        # What was heard since the last ``take`` is not in the store yet.
        self._just_shut = {}
        for call in self._calls:
            self._hear(call)

    def _hear(self, call: ModelCall) -> None:
        purse = self._purses.get(call.agent_id)
        if purse is not None and call.trouble is not None and call.of_account:
            self._just_shut[purse.account_id] = Refusal(trouble=call.trouble, message=call.message)

    def _poor(self, agent_id: AgentId, purse: Purse) -> str | None:
        """Return why there is nothing left for another call, or None."""
        now = self._now()
        if agent_id in self._unpriced and purse.priced(now):
            # A budget that cannot be kept must not look as if it were.
            model = self._unpriced[agent_id]
            return f"there is a budget, and the price of {model} is not known; name a price table in KAPELLE_PRICES"
        empty = exhausted(self._levels(purse, now))
        if empty is None:
            return None
        self._tell(BudgetReached, purse, empty)
        return f"the budget of {empty.budget.name} is spent ({empty.told})"

    def _levels(self, purse: Purse, now: datetime) -> Iterator[Level]:
        return levels(purse.budgets(now), lambda key: self._spent.get(key, Spend()) + self._at_work(key, now))

    def _at_work(self, key: str, now: datetime) -> Spend:
        """Return for how long the agents that are there now have been, of a task or a run."""
        its = (purse for purse in self._purses.values() if key in {task_key(purse.task_id), run_key(purse.run_id)})
        return Spend(time=sum((now - purse.began_at for purse in its), timedelta(0)))

    def _tell(self, kind: type[BudgetReached | BudgetWarned], purse: Purse, level: Level) -> None:
        """Tell once of a budget that is spent, or nearly."""
        which = (kind, level.budget.key, level.resource)
        if which in self._said:
            return
        self._said.add(which)
        fact = kind(
            run_id=purse.run_id,
            task_id=purse.task_id,
            budget=level.budget.name,
            resource=level.resource.value,
            limit=level.limit,
            spent=level.spent,
        )
        self._facts.append(fact)
        self._wake()

    def record(self, call: ModelCall) -> None:
        """See ``core.gateway.Meter``."""
        now, purse = self._now(), self._purses.get(call.agent_id)
        if purse is not None:
            call = replace(call, project=purse.project, account_id=purse.account_id)
        for key in keys_of(call, now):
            if key in self._spent:
                self._spent[key] += spend_of(call)
        if not call.priced and call.model:
            self._unpriced[call.agent_id] = call.model
        self._calls.append(call)
        self._hear(call)
        if purse is not None:
            for level in nearly(self._levels(purse, now)):
                self._tell(BudgetWarned, purse, level)
        self._wake()

    def crowded(self, agent_id: AgentId, reason: str) -> None:
        """See ``core.gateway.Meter``; told once, or an agent could fill the log."""
        purse = self._purses.get(agent_id)
        if purse is None or (agent_id, reason) in self._crowded:
            return
        self._crowded.add((agent_id, reason))
        self._facts.append(LimitMet(run_id=purse.run_id, task_id=purse.task_id, agent_id=agent_id, reason=reason))
        self._wake()

    def take(self) -> tuple[list[ModelCall], list[Event]]:
        """Return what has to be written down since the last call."""
        calls, self._calls = self._calls, []
        facts, self._facts = self._facts, []
        return calls, facts

    def give_back(self, taken: tuple[list[ModelCall], list[Event]]) -> None:
        """Put back what could not be written."""
        self._calls[:0] = taken[0]
        self._facts[:0] = taken[1]


def write_down(tx: Tx, taken: tuple[list[ModelCall], list[Event]]) -> None:
    """Write calls, and budgets and bounds that were reached, into the store, with their events."""
    calls, facts = taken
    if calls:
        tx.ledger.add(calls, tx.now)
    for call in calls:
        tx.log(
            ModelCalled(
                run_id=call.run_id,
                task_id=call.task_id,
                model=call.model,
                usage=call.usage,
                cost_usd=call.cost_usd,
                status=call.status,
                error=call.error,
                trouble=None if call.trouble is None else call.trouble.value,
            )
        )
    for fact in facts:
        tx.log(fact)
