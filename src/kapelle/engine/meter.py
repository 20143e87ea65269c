r"""The meter: what has been spent, kept in memory so that the gateway can ask before every single call.

    admit --(kept back, written down)--> kept --> still --the call goes out--> record --(booked)
       |                                            \--> refused after all, and forgotten
       |--> held, until others have ended: what they keep back may use the budget up
       \--> refused

Totals are read from the store when the lead is taken. What a call will probably use is kept back until it ends, and what it has
used is added then; the execute stage writes both down, so that a call that was on its way when the leader died is booked by the
next one, once and as it was guessed. A budget is never passed by more than the calls that were in flight when it was reached,
and where the guesses hold that is one call: the last is let through as long as anything is left.
"""

from asyncio import Event
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from kapelle.core.account import Account
from kapelle.core.budget import Level, Resource, Spend, all_exhausted, amount, levels, nearly
from kapelle.core.calls import LOST, Held, ModelCall, Refusal
from kapelle.core.conversation import Trouble
from kapelle.core.event import Event as Fact
from kapelle.core.events import BudgetWarned, ModelCalled
from kapelle.core.frozen import frozen, replace
from kapelle.core.halt import Halt
from kapelle.core.halt import told as halt_told
from kapelle.core.hours import hours_told
from kapelle.core.ids import AccountId, AgentId
from kapelle.core.isolation_events import LimitMet
from kapelle.core.spent import OnSpent, Raises, SpentBudget, raised
from kapelle.core.store import Tx, View
from kapelle.engine.accounts import refusal_of
from kapelle.engine.holds import Brakes, brakes_of, opening_of
from kapelle.engine.purses import Purse, keys_of, run_key, spend_of, sum_up, task_key, time_of
from kapelle.engine.spending import Reached

GONE = Refusal(trouble=Trouble.BUDGET, message="this agent has been stopped")


class EngineMeter:
    """See ``core.gateway.Meter``; all in the leader's event loop."""

    def __init__(self, wake: Callable[[], None], wake_soon: Callable[[], None], now: Callable[[], datetime]) -> None:
        self._wake = wake
        self._wake_soon = wake_soon
        self._now = now
        self._spent: dict[str, Spend] = {}
        """What was spent, by what it is added up under; calls that are not written down yet too."""
        self._purses: dict[AgentId, Purse] = {}
        self._flying: dict[str, ModelCall] = {}
        """Calls that were let through and have not ended, by their ids."""
        self._begun: list[ModelCall] = []
        """Those that are not written down yet."""
        self._keeping: dict[str, Event] = {}
        """Set when they are."""
        self._dropped: list[str] = []
        """Calls that were let through and did not go out, and are not forgotten by the store yet."""
        self._ended = Event()
        """Set when a call ends; the next one has another."""
        self._calls: list[ModelCall] = []
        self._facts: list[Fact] = []
        self._crowded: set[tuple[AgentId, str]] = set()
        """Agents that were told of already, and what of them."""
        self._reached: list[Reached] = []
        """Budgets of which somebody has nothing left, and which were not told of yet."""
        self._said: set[tuple[str, str, Resource, float]] = set()
        """What was told of which budgets, and what their limit was: one that was raised is told of again."""
        self._raises: Raises = {}
        """By how much people have raised budgets."""
        self._spent_rows: Sequence[SpentBudget] = ()
        """Budgets that are known to be spent."""
        self._halt: Halt | None = None
        self._halting: Halt | None = None
        """One that is being written down: whoever reads of it in the store may rely on it."""
        self._gone: dict[AgentId, tuple[Purse, datetime]] = {}
        """Agents that have ended, and when; until the store knows that they have."""
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
        self._said |= {("warned", key, Resource(resource), limit) for key, resource, limit in view.ledger.warned()}
        self._braked(brakes_of(view, self._now()))
        for call in view.ledger.on_their_way():
            # Nobody knows any more what they cost; they are booked as they were guessed.
            self._add(call)

    def unknown(self, view: View, purses: Iterable[Purse]) -> "Totals":
        """Return what stands in the store for those budgets of *purses* that this meter does not know yet; see ``know``."""
        now = self._now()
        found = {
            key: spend
            for purse in purses
            if any(budget.key not in self._spent for budget in purse.budgets(now))
            for key, spend in sum_up(view, purse, now).items()
        }
        return Totals(spent=found, live=frozenset(agent.agent_id for agent in view.agents.live()))

    def know(self, totals: "Totals") -> None:
        """Take in what ``unknown`` has found in a transaction that is committed."""
        now = self._now()
        self._gone = {agent_id: gone for agent_id, gone in self._gone.items() if agent_id in totals.live}
        for key, total in totals.spent.items():
            if key in self._spent:
                continue
            # What was called since is not in the store, and whoever has ended since still works by what stands there.
            since = [spend_of(call) for call in self._calls if key in keys_of(call, now)]
            since += [time_of(purse, at).get(key, Spend()) for purse, at in self._gone.values()]
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
            now = self._now()
            self._gone[agent_id] = (purse, now)
            for key, time in time_of(purse, now).items():
                if key in self._spent:
                    self._spent[key] += time
        self._unpriced.pop(agent_id, None)
        self._crowded = {told for told in self._crowded if told[0] != agent_id}

    @property
    def purses(self) -> Collection[Purse]:
        """The purses of all agents whose calls are counted."""
        return self._purses.values()

    def admit(self, call: ModelCall) -> Refusal | Held | None:
        """See ``core.gateway.Meter``."""
        purse, now = self._purses.get(call.agent_id), self._now()
        refusal = self._refusal(call.agent_id, purse, now)
        if purse is None or refusal is not None:
            return refusal or GONE
        call = replace(call, project=purse.project, account_id=purse.account_id, settled=False)
        if self._crosses(call, purse, now):
            return Held()
        self._flying[call.call_id] = call
        self._begun.append(call)
        self._keeping[call.call_id] = Event()
        self._wake()
        return None

    async def room(self) -> None:
        """See ``core.gateway.Meter``."""
        await self._ended.wait()

    async def kept(self, call_id: str) -> None:
        """See ``core.gateway.Meter``."""
        waiting = self._keeping.get(call_id)
        if waiting is not None:
            await waiting.wait()

    def still(self, call_id: str) -> Refusal | None:
        """See ``core.gateway.Meter``."""
        call = self._flying.get(call_id)
        if call is None:
            return GONE
        refusal = self._refusal(call.agent_id, self._purses.get(call.agent_id), self._now())
        if refusal is not None:
            del self._flying[call_id]
            self._dropped.append(call_id)
            self._one_has_ended()
            self._wake()
        return refusal

    def _refusal(self, agent_id: AgentId, purse: Purse | None, now: datetime) -> Refusal | None:
        """Return why an agent may not call now; None when it may, as far as that does not depend on calls of others."""
        if purse is None:
            return GONE
        if halted := self._halted(purse):
            return Refusal(trouble=Trouble.HALTED, message=halted)
        if shut := self._just_shut.get(purse.account_id) or self._shut.get(purse.account_id):
            return shut
        poor = self._poor(agent_id, purse, now)
        return None if poor is None else Refusal(trouble=Trouble.BUDGET, message=poor)

    def _crosses(self, call: ModelCall, purse: Purse, now: datetime) -> bool:
        """Say whether *call*, and those that are on their way, may use up a budget together; alone it is let through."""
        guessed = spend_of(call)
        for level in self._levels(purse, now):
            key = level.budget.key
            # What an agent that is gone has asked for keeps nobody waiting.
            others = (other for other in self._flying.values() if other.agent_id in self._purses)
            flying = sum((spend_of(other) for other in others if key in keys_of(other, now)), Spend())
            kept_back = amount(level.resource, flying)
            if kept_back > 0 and level.spent + kept_back + amount(level.resource, guessed) > level.limit:
                return True
        return False

    def _halted(self, purse: Purse) -> str:
        """Say in words why nobody may call now, or those of the purse's run may not; nothing when they may."""
        halt = self._halt or self._halting
        if halt is not None:
            return halt_told(halt)
        found = opening_of(purse.hours, self._now()) if purse.hours is not None else None
        return "" if found is None or found.open else hours_told(found)

    def halting(self, halt: Halt) -> None:
        """Let no call pass from now on, before it is written down that everything is halted: afterwards it would be too late.

        May be called in any thread. What ``hold`` is told next is what counts then.
        """
        self._halting = halt

    def _braked(self, brakes: Brakes) -> None:
        self._raises, self._spent_rows = brakes.raises, brakes.spent
        if brakes.halt is not None and self._halt is None:
            # Those who wait for others to end are told at once.
            self._one_has_ended()
        self._halt, self._halting = brakes.halt, None

    def _one_has_ended(self) -> None:
        over, self._ended = self._ended, Event()
        over.set()

    def hold(self, accounts: Mapping[AccountId, Account], brakes: Brakes) -> None:
        """Let no call through that may not, by what stands in the store now: *accounts* that are shut, and *brakes*."""
        self._braked(brakes)
        self._shut = {account_id: refusal_of(found) for account_id, found in accounts.items() if found.shut}
        # What was heard since the last ``take`` is not in the store yet.
        self._just_shut = {}
        for call in self._calls:
            self._hear(call)

    def _hear(self, call: ModelCall) -> None:
        purse = self._purses.get(call.agent_id)
        if purse is not None and call.trouble is not None and call.of_account:
            self._just_shut[purse.account_id] = Refusal(trouble=call.trouble, message=call.message)

    def _poor(self, agent_id: AgentId, purse: Purse, now: datetime) -> str | None:
        """Return why there is nothing left for another call, or None."""
        if agent_id in self._unpriced and purse.priced(now):
            # A budget that cannot be kept must not look as if it were.
            model = self._unpriced[agent_id]
            return f"there is a budget, and the price of {model} is not known; name a price table in KAPELLE_PRICES"
        empty = list(all_exhausted(self._levels(purse, now)))
        for level in empty:
            self._tell_reached(purse, level)
        return f"the budget of {empty[0].budget.name} is spent ({empty[0].told})" if empty else None

    def _levels(self, purse: Purse, now: datetime) -> Iterator[Level]:
        budgets = [raised(budget, self._raises) for budget in purse.budgets(now)]
        # It is asked before every call, of all agents there are: only where time is bounded.
        timed = {budget.key for budget in budgets if budget.allowance.time is not None}

        def spent(key: str) -> Spend:
            return self._spent.get(key, Spend()) + (self._at_work(key, now) if key in timed else Spend())

        return levels(budgets, spent)

    def _at_work(self, key: str, now: datetime) -> Spend:
        """Return for how long the agents that are there now have worked, of those whose spending is added up under *key*."""
        return sum((time_of(purse, now).get(key, Spend()) for purse in self._purses.values()), Spend())

    def _tell_reached(self, purse: Purse, level: Level) -> None:
        """Tell of a budget that is spent, unless that is known: nobody is asked about it twice."""
        asks, patience = purse.on_spent, purse.answer_within
        found = Reached(run_id=purse.run_id, task_id=purse.task_id, level=level, on_spent=asks, answer_within=patience)
        known = any(found.is_known_by(row) for row in self._spent_rows) or any(found.is_like(other) for other in self._reached)
        if known or (asks is OnSpent.STOP and not self._first_time("reached", level)):
            return
        self._reached.append(found)
        self._wake()

    def _first_time(self, what: str, level: Level) -> bool:
        which = (what, level.budget.key, level.resource, level.limit)
        first = which not in self._said
        self._said.add(which)
        return first

    def _warn(self, purse: Purse, level: Level) -> None:
        """Tell once of a budget that is nearly spent."""
        if not self._first_time("warned", level):
            return
        fact = BudgetWarned(
            run_id=purse.run_id,
            task_id=purse.task_id,
            budget=level.budget.name,
            resource=level.resource.value,
            limit=level.limit,
            spent=level.spent,
            key=level.budget.key,
        )
        self._facts.append(fact)
        self._wake()

    def heard(self, call_id: str) -> None:
        """See ``core.gateway.Meter``; what a call costs is known at its end."""

    def record(self, call: ModelCall) -> None:
        """See ``core.gateway.Meter``."""
        now, purse = self._now(), self._purses.get(call.agent_id)
        if purse is not None:
            call = replace(call, project=purse.project, account_id=purse.account_id)
        self._flying.pop(call.call_id, None)
        self._one_has_ended()
        self._add(call)
        if not call.priced and call.model:
            self._unpriced[call.agent_id] = call.model
        self._calls.append(call)
        self._hear(call)
        if purse is not None:
            for level in nearly(self._levels(purse, now)):
                self._warn(purse, level)
        # It counts already; writing it down has time.
        self._wake_soon()

    def _add(self, call: ModelCall) -> None:
        for key in keys_of(call, self._now()):
            if key in self._spent:
                self._spent[key] += spend_of(call)

    def crowded(self, agent_id: AgentId, reason: str) -> None:
        """See ``core.gateway.Meter``; told once, or an agent could fill the log."""
        purse = self._purses.get(agent_id)
        if purse is None or (agent_id, reason) in self._crowded:
            return
        self._crowded.add((agent_id, reason))
        self._facts.append(LimitMet(run_id=purse.run_id, task_id=purse.task_id, agent_id=agent_id, reason=reason))
        self._wake()

    def take(self) -> "Taken":
        """Return what has to be written down since the last call."""
        dropped, self._dropped = self._dropped, []
        taken = Taken(begun=self._begun, dropped=dropped, calls=self._calls, facts=self._facts, reached=self._reached)
        self._begun, self._calls, self._facts, self._reached = [], [], [], []
        return taken

    def give_back(self, taken: "Taken") -> None:
        """Put back what could not be written."""
        self._begun[:0] = taken.begun
        self._dropped[:0] = taken.dropped
        self._calls[:0] = taken.calls
        self._facts[:0] = taken.facts
        self._reached[:0] = taken.reached

    def written(self, taken: "Taken") -> None:
        """Let the calls go out that are written down."""
        for call in taken.begun:
            waiting = self._keeping.pop(call.call_id, None)
            if waiting is not None:
                waiting.set()


@frozen
class Totals:
    """What stands in the store."""

    spent: Mapping[str, Spend]
    """What was spent, by what it is added up under."""
    live: frozenset[AgentId]
    """The agents that live by it."""


@frozen
class Taken:
    """What has to be written down."""

    begun: list[ModelCall]
    dropped: list[str]
    """Calls that were begun and did not go out, by their ids."""
    calls: list[ModelCall]
    facts: list[Fact]
    reached: list[Reached]
    """Written down by ``engine.spending``."""


def book_lost(tx: Tx) -> None:
    """Book the calls that were on their way when the last leader died, as they were guessed."""
    lost = [replace(call, settled=True, error=LOST) for call in tx.ledger.on_their_way()]
    _book(tx, lost)


def write_down(tx: Tx, taken: Taken) -> None:
    """Write calls, and bounds that were reached, into the store, with their events."""
    if taken.begun:
        tx.ledger.keep(taken.begun, tx.now)
    if taken.dropped:
        tx.ledger.drop(taken.dropped)
    _book(tx, taken.calls)
    tx.log(*taken.facts)


def _book(tx: Tx, calls: Sequence[ModelCall]) -> None:
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
