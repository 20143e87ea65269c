"""Purses: under which budgets an agent spends, and what their spending is added up under."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TypedDict

from kapelle.core.account import account_of
from kapelle.core.budget import Allowance, Budget, Period, Resource, Scope, Spend, StandingBudget, began, standing_key
from kapelle.core.calls import ModelCall
from kapelle.core.frozen import frozen
from kapelle.core.hours import WorkingHours
from kapelle.core.ids import AccountId, RunId, TaskId
from kapelle.core.run import Run
from kapelle.core.spent import OnSpent
from kapelle.core.store import View
from kapelle.core.task import Task


@frozen
class Purse:
    """Whose budgets hold for an agent."""

    run_id: RunId
    run_name: str
    run_allowance: Allowance
    task_id: TaskId
    task_name: str
    task_allowance: Allowance
    project: str
    account_id: AccountId
    account_name: str
    standing: tuple[StandingBudget, ...]
    began_at: datetime
    """Since when the agent is there."""
    rested: timedelta = timedelta(0)
    """For how long of that it stood still, frozen by a person."""
    frozen_at: datetime | None = None
    """Since when it stands still now."""
    on_spent: OnSpent = OnSpent.ASK
    answer_within: timedelta | None = None
    """See ``run.Limits``."""
    hours: WorkingHours | None = None
    """When it may work."""

    def budgets(self, now: datetime) -> Iterator[Budget]:
        """Yield the budgets that bound anything at *now*, the smallest first."""
        if self.task_allowance.bounded:
            yield Budget(key=task_key(self.task_id), name=f"task {self.task_name}", allowance=self.task_allowance)
        if self.run_allowance.bounded:
            yield Budget(key=run_key(self.run_id), name=f"run {self.run_name}", allowance=self.run_allowance)
        for standing in self.standing:
            yield Budget(key=self.key_of(standing, now), name=self._name(standing), allowance=standing.allowance)

    def key_of(self, standing: StandingBudget, now: datetime) -> str:
        """Return what the spending under *standing* is added up under at *now*."""
        return standing_key(standing, self.whose(standing.scope), now)

    def priced(self, now: datetime) -> bool:
        """Say whether there is a budget of money, which only keeps who knows prices."""
        return any(resource is Resource.USD for budget in self.budgets(now) for resource, _ in budget.allowance.limits())

    def worked(self, now: datetime, since: datetime | None = None) -> timedelta:
        """Return for how long the agent has worked, or for how long of that *since* a time."""
        until = now if self.frozen_at is None else self.frozen_at
        began = self.began_at if since is None else max(self.began_at, since)
        return max(until - began - self.rested, timedelta(0))

    def whose(self, scope: Scope) -> str:
        """Return by what name the spending under *scope* is added up."""
        return _whose(scope, self.project, self.account_id)

    def _name(self, standing: StandingBudget) -> str:
        whose = {Scope.PROJECT: f"project {self.project}", Scope.ACCOUNT: self.account_name}.get(standing.scope, "the day")
        return whose if standing.per is Period.EVER or standing.scope is Scope.DAY else f"{whose} for the {standing.per.value}"


def purse_of(run: Run, task: Task, account_id: AccountId, account_name: str, began_at: datetime) -> Purse:
    """Return the purse of an agent of *task*."""
    return Purse(
        run_id=run.run_id,
        run_name=run.spec.name,
        run_allowance=run.spec.limits.budget,
        task_id=task.task_id,
        task_name=task.name,
        task_allowance=task.spec.budget,
        project=run.spec.project,
        account_id=account_id,
        account_name=account_name,
        standing=run.spec.limits.standing,
        began_at=began_at,
        on_spent=run.spec.limits.on_spent,
        answer_within=run.spec.limits.answer_within,
        hours=run.spec.hours,
    )


def _whose(scope: Scope, project: str, account_id: AccountId) -> str:
    return {Scope.PROJECT: project, Scope.ACCOUNT: str(account_id)}.get(scope, "")


def standing_keys(run: Run, now: datetime) -> frozenset[str]:
    """Return what the spending of all tasks of *run* is added up under at *now*, beside that of themselves and of the run."""
    standing = run.spec.limits.standing
    account_id = account_of(run.spec.upstream).account_id if standing else AccountId("")
    return frozenset(standing_key(each, _whose(each.scope, run.spec.project, account_id), now) for each in standing)


def task_key(task_id: TaskId) -> str:
    """Return what the spending of a task is added up under."""
    return f"task:{task_id}"


def run_key(run_id: RunId) -> str:
    """Return what the spending of a run is added up under."""
    return f"run:{run_id}"


def keys_of(spender: ModelCall | Purse, now: datetime) -> Iterator[str]:
    """Yield everything that what a call or an agent spends at *now* may be added up under."""
    return (key for key, _ in _keys_since(spender, now))


def time_of(purse: Purse, now: datetime) -> dict[str, Spend]:
    """Return for how long the agent of *purse* has worked, by everything that this may be added up under at *now*."""
    return {key: Spend(time=purse.worked(now, since)) for key, since in _keys_since(purse, now)}


def _keys_since(spender: ModelCall | Purse, now: datetime) -> Iterator[tuple[str, datetime | None]]:
    yield task_key(spender.task_id), None
    yield run_key(spender.run_id), None
    for scope in (Scope.PROJECT, Scope.ACCOUNT, Scope.DAY):
        whose = _whose(scope, spender.project, spender.account_id)
        for period in Period:
            standing = StandingBudget(scope=scope, allowance=Allowance(), per=period)
            yield standing_key(standing, whose, now), began(period, now)


def spend_of(call: ModelCall) -> Spend:
    """Return what *call* adds."""
    return Spend(usage=call.usage, cost_usd=call.cost_usd, calls=1)


class _Whose(TypedDict, total=False):
    """Of whom the store is to tell what they did; of nobody in particular: of all."""

    project: str
    account_id: AccountId


def sum_up(view: View, purse: Purse, now: datetime) -> dict[str, Spend]:
    """Return what stands in the store for each standing budget of *purse*."""
    found: dict[str, Spend] = {}
    for standing in purse.standing:
        since = began(standing.per, now)
        key = purse.key_of(standing, now)
        match standing.scope:
            case Scope.PROJECT:
                whose = _Whose(project=purse.project)
            case Scope.ACCOUNT:
                whose = _Whose(account_id=purse.account_id)
            case _:
                whose = _Whose()
        time = view.agents.worked_since(since, **whose) if standing.allowance.time is not None else timedelta(0)
        found[key] = view.ledger.total(**whose, since=since) + Spend(time=time)
    return found
