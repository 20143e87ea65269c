"""What keeps a task from every agent, other than want of room: a spent budget, the off switch, the hours, its account.

It only reads: whoever explains a decision reads the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

from kapelle.core.account import Account, account_of
from kapelle.core.budget import ends
from kapelle.core.frozen import frozen
from kapelle.core.halt import Halt
from kapelle.core.halt import told as halt_told
from kapelle.core.hours import Opening, WorkingHours, hours_told, opening
from kapelle.core.ids import AccountId, RunId
from kapelle.core.run import Run
from kapelle.core.spent import OnSpent, Raises, SpentBudget, SpentState, in_the_way, raises_of
from kapelle.core.spent import told as spent_told
from kapelle.core.store import View
from kapelle.core.task import Task, Wait
from kapelle.engine.accounts import waits
from kapelle.engine.purses import Purse, purse_of
from kapelle.engine.world import World


@frozen
class Hold:
    """What keeps a task from every agent of a config, other than want of room."""

    wait: Wait
    detail: str
    until: datetime | None = None
    final: bool = False
    """Whether it never gets one: its budget is spent, and stays so."""


@cache
def zone_of(name: str) -> tzinfo:
    """Return the time zone called *name*, which was looked up when the run was submitted.

    Raises:
        ZoneInfoNotFoundError: this machine does not know it.
    """
    return ZoneInfo(name)


def opening_of(hours: WorkingHours, now: datetime) -> Opening:
    """Say whether *now* is within *hours*."""
    return opening(hours, zone_of(hours.zone), now)


def its_purse(run: Run, task: Task, began_at: datetime) -> Purse:
    """Return the purse of an agent of *task* that is there since *began_at*."""
    account = account_of(run.spec.upstream)
    return purse_of(run, task, account.account_id, account.name, began_at)


@frozen
class Brakes:
    """What stands in the store of spent budgets and of the off switch, at one moment."""

    now: datetime
    spent: tuple[SpentBudget, ...] = ()
    """Those that are not over."""
    halt: Halt | None = None
    _of_runs: dict[tuple[RunId, bool], Hold | None] = field(
        default_factory=dict[tuple[RunId, bool], "Hold | None"], repr=False, compare=False
    )
    """What was found for the tasks of a run that have no budget of their own: thousands of them may wait."""

    @property
    def raises(self) -> Raises:
        """By how much budgets were raised."""
        return raises_of(self.spent)

    @property
    def asking(self) -> bool:
        """Whether any budget is spent and not raised."""
        return any(row.state in {SpentState.OPEN, SpentState.STOPPED} for row in self.spent)

    def spent_by(self, run: Run, task: Task) -> SpentBudget | None:
        """Return the budget of which *task* has nothing left, if a person was asked about it and has not raised it."""
        found = self.all_spent_by(run, task)
        return found[0] if found else None

    def all_spent_by(self, run: Run, task: Task) -> Sequence[SpentBudget]:
        """Return all budgets of which *task* has nothing left, those first that somebody said stop to."""
        if not self.asking:
            return ()
        return in_the_way(self.spent, its_purse(run, task, self.now).budgets(self.now), self.raises)

    def of(self, run: Run, task: Task, *, calls: bool) -> Hold | None:
        """Return what keeps *task* from its agents; *calls* says whether those call a model through the gateway's books."""
        if task.spec.budget.bounded:
            return self._of(run, task, calls=calls)
        key = (run.run_id, calls)
        if key not in self._of_runs:
            self._of_runs[key] = self._of(run, task, calls=calls)
        return self._of_runs[key]

    def _of(self, run: Run, task: Task, *, calls: bool) -> Hold | None:
        row = self.spent_by(run, task) if calls else None
        final = row is not None and (row.state is SpentState.STOPPED or run.spec.limits.on_spent is OnSpent.STOP)
        if row is not None and final:
            return Hold(wait=Wait.BUDGET, detail=final_words(row), final=True)
        if self.halt is not None:
            return Hold(wait=Wait.PAUSED, detail=halt_told(self.halt))
        if row is not None:
            return Hold(wait=Wait.BUDGET, detail=spent_told(row), until=self._turn_over(run, task, row))
        return self.of_hours(run)

    def of_hours(self, run: Run) -> Hold | None:
        """Return what keeps agents of *run* from working now, if the hours do."""
        if run.spec.hours is None:
            return None
        found = opening_of(run.spec.hours, self.now)
        return None if found.open else Hold(wait=Wait.SCHEDULE, detail=hours_told(found), until=found.until)

    def _turn_over(self, run: Run, task: Task, row: SpentBudget) -> datetime | None:
        """Return when the budget that is spent begins anew by itself, if it does."""
        purse = its_purse(run, task, self.now)
        its = (standing for standing in purse.standing if purse.key_of(standing, self.now) == row.key)
        return next((ends(standing.per, self.now) for standing in its), None)


def final_words(row: SpentBudget) -> str:
    """Say why what spends under *row* fails."""
    return spent_told(row) if row.state is SpentState.STOPPED else f"the budget of {row.name} is spent ({row.amounts})"


def brakes_of(view: View, now: datetime) -> Brakes:
    """Return what stands in the store."""
    return Brakes(now=now, spent=tuple(view.brakes.spent()), halt=view.brakes.halt())


def hold_of(
    world: World, brakes: Brakes, closed: Mapping[AccountId, Account], run: Run, task: Task, config: str
) -> Hold | None:
    """Return what keeps *task* from agents of *config*, other than want of room."""
    calls = world.driver(run.spec.config(config).program).capabilities.uses_gateway
    braked = brakes.of(run, task, calls=calls)
    if braked is not None or not calls:
        return braked
    account = closed.get(account_of(run.spec.upstream).account_id) if closed else None
    if account is not None and account.shut:
        kind, detail, later = waits(account)
        return Hold(wait=kind, detail=detail, until=later)
    reference = run.spec.upstream.credential
    if reference is None or world.credentials.resolve(reference):
        return None
    return Hold(wait=Wait.CREDENTIALS, detail=f"{reference} is not set where Kapelle leads", until=task.due_at)
