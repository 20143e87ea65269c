"""The meter: what has been spent, kept in memory so that the gateway can ask before every single call.

Totals are read from the store when the lead is taken, calls are added as they end, and the execute stage writes them down
with its next transaction. A budget is thus never passed by more than the calls that were in flight when it was reached.
"""

from collections.abc import Callable, Mapping

from kapelle.core.account import Account
from kapelle.core.budget import Budget, exhausted
from kapelle.core.calls import ModelCall, Refusal
from kapelle.core.conversation import Trouble
from kapelle.core.event import Event
from kapelle.core.events import BudgetReached, ModelCalled
from kapelle.core.frozen import frozen
from kapelle.core.ids import AccountId, AgentId, RunId, TaskId
from kapelle.core.isolation_events import LimitMet
from kapelle.core.store import Tx, View
from kapelle.engine.accounts import refusal_of


@frozen
class _Purse:
    account_id: AccountId
    run_id: RunId
    task_id: TaskId
    task_name: str
    task_limit: float | None
    run_name: str
    run_limit: float | None

    @property
    def limited(self) -> bool:
        """Whether any budget holds for it."""
        return self.task_limit is not None or self.run_limit is not None


class EngineMeter:
    """See ``core.gateway.Meter``; all in the leader's event loop."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._by_task: dict[TaskId, float] = {}
        self._by_run: dict[RunId, float] = {}
        self._purses: dict[AgentId, _Purse] = {}
        self._calls: list[ModelCall] = []
        self._facts: list[Event] = []
        self._crowded: set[tuple[AgentId, str]] = set()
        """Agents that were told of already, and what of them."""
        self._said: set[tuple[RunId, str]] = set()
        self._unpriced: dict[AgentId, str] = {}
        """Agents that were seen to call a model whose price is not known, and which."""
        self._shut: dict[AccountId, Refusal] = {}
        """Accounts that are shut by what stands in the store."""
        self._just_shut: dict[AccountId, Refusal] = {}
        """Those whose refusal was heard and is not written down yet."""

    def load(self, view: View) -> None:
        """Take the totals of all runs that have not ended from the store."""
        for run_id, spend in view.ledger.by_run().items():
            self._by_run[run_id] = spend.cost_usd
            for task_id, part in view.ledger.by_task(run_id).items():
                self._by_task[task_id] = part.cost_usd

    def open(
        self,
        agent_id: AgentId,
        *,
        run_id: RunId,
        task_id: TaskId,
        task_name: str,
        task_limit: float | None,
        run_name: str,
        run_limit: float | None,
        account_id: AccountId,
    ) -> None:
        """Let the calls of an agent be counted against the budgets of its task and run, in US dollars."""
        self._purses[agent_id] = _Purse(
            account_id=account_id,
            run_id=run_id,
            task_id=task_id,
            task_name=task_name,
            task_limit=task_limit,
            run_name=run_name,
            run_limit=run_limit,
        )

    def close(self, agent_id: AgentId) -> None:
        """Forget an agent; what it spent stays."""
        self._purses.pop(agent_id, None)
        self._unpriced.pop(agent_id, None)
        self._crowded = {told for told in self._crowded if told[0] != agent_id}

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

    def _poor(self, agent_id: AgentId, purse: _Purse) -> str | None:
        """Return why there is no money for another call, or None."""
        if purse.limited and agent_id in self._unpriced:
            # A budget that cannot be kept must not look as if it were.
            model = self._unpriced[agent_id]
            return f"there is a budget, and the price of {model} is not known; name a price table in KAPELLE_PRICES"
        empty = exhausted(self._budgets(purse))
        if empty is None:
            return None
        if (purse.run_id, empty.name) not in self._said:
            self._said.add((purse.run_id, empty.name))
            reached = BudgetReached(
                run_id=purse.run_id,
                task_id=purse.task_id,
                budget=empty.name,
                limit_usd=empty.limit_usd,
                spent_usd=empty.spent_usd,
            )
            self._facts.append(reached)
            self._wake()
        return f"the budget of {empty.name} is spent (${empty.spent_usd:.2f} of ${empty.limit_usd:.2f})"

    def _budgets(self, purse: _Purse) -> list[Budget]:
        found: list[Budget] = []
        if purse.task_limit is not None:
            spent = self._by_task.get(purse.task_id, 0.0)
            found.append(Budget(name=f"task {purse.task_name}", limit_usd=purse.task_limit, spent_usd=spent))
        if purse.run_limit is not None:
            spent = self._by_run.get(purse.run_id, 0.0)
            found.append(Budget(name=f"run {purse.run_name}", limit_usd=purse.run_limit, spent_usd=spent))
        return found

    def record(self, call: ModelCall) -> None:
        """See ``core.gateway.Meter``."""
        self._by_task[call.task_id] = self._by_task.get(call.task_id, 0.0) + call.cost_usd
        self._by_run[call.run_id] = self._by_run.get(call.run_id, 0.0) + call.cost_usd
        if not call.priced and call.model:
            self._unpriced[call.agent_id] = call.model
        self._calls.append(call)
        self._hear(call)
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
