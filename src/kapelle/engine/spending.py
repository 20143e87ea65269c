r"""Spending in the engine: a budget that is reached is asked about once, and the answer holds for all that spend under it.

reached --(no question is open)--> asked --a person raises it--> who waited goes on, in the same conversation
|----a person says stop, or nobody answers in time--> who waited fails
\----its run has ended, or its period is over--> withdrawn
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from kapelle.core.attempt import Outcome
from kapelle.core.brake_events import BudgetAsked, BudgetRaised, BudgetStopped, BudgetWithdrawn
from kapelle.core.budget import Level, Scope, amount_told, past
from kapelle.core.errors import NotFound, NotPossibleNow
from kapelle.core.events import BudgetReached
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import RunId, SpentId, TaskId
from kapelle.core.requests import AnswerSpent
from kapelle.core.run import RUN_TERMINAL, Run
from kapelle.core.spent import OnSpent, SpentAnswer, SpentBudget, SpentState, settle
from kapelle.core.store import Tx, View
from kapelle.core.task import TERMINAL, Failure, Task, TaskState, Wait
from kapelle.engine.ending import finish, give_up_attempt, wait
from kapelle.engine.holds import Brakes, brakes_of, final_words
from kapelle.engine.purses import standing_keys
from kapelle.engine.world import World

LISTS = "`kapelle inbox` lists what waits for you."
BRAKED = (Wait.BUDGET, Wait.PAUSED, Wait.SCHEDULE)
"""What tasks wait for that brakes hold."""


Asked = TypeVar("Asked", BudgetAsked, BudgetRaised, BudgetStopped, BudgetWithdrawn)


@frozen
class Reached:
    """A budget of which somebody has nothing left."""

    run_id: RunId
    task_id: TaskId
    level: Level
    on_spent: OnSpent = OnSpent.ASK
    answer_within: timedelta | None = None

    def is_like(self, other: "Reached") -> bool:
        """Say whether *other* tells of the same budget, and of a limit that is not lower."""
        mine, its = self.level, other.level
        same = (mine.budget.key, mine.resource) == (its.budget.key, its.resource)
        return same and its.limit >= mine.limit and self.on_spent is other.on_spent

    def is_known_by(self, row: SpentBudget) -> bool:
        """Say whether *row* asks, or was answered, about the same, and of a limit that is not lower."""
        same = (row.key, row.resource) == (self.level.budget.key, self.level.resource)
        return same and row.state in {SpentState.OPEN, SpentState.STOPPED} and row.spent >= self.level.limit


class Spending:
    """Writes down what happens to spent budgets, inside the transactions of the stages."""

    def __init__(self, world: World) -> None:
        self._world = world

    # --- Asking ---

    def reached(self, tx: Tx, found: Sequence[Reached]) -> None:
        """Take in that budgets were reached: each is asked about once, however many agents have met it."""
        for each in found:
            self._reached(tx, each)

    def _reached(self, tx: Tx, found: Reached) -> None:
        level = found.level
        rows = [row for row in tx.brakes.spent() if (row.key, row.resource) == (level.budget.key, level.resource)]
        asked = next((row for row in rows if row.state is SpentState.OPEN), None)
        if asked is not None:
            # Somebody who may spend more has met it now: whoever has less waits as before.
            tx.brakes.put_spent(replace(asked, spent=max(asked.spent, level.spent)))
            return
        if any(found.is_known_by(row) for row in rows):
            return
        tx.log(
            BudgetReached(
                run_id=found.run_id,
                task_id=found.task_id,
                budget=level.budget.name,
                resource=level.resource.value,
                limit=level.limit,
                spent=level.spent,
            )
        )
        if found.on_spent is OnSpent.STOP:
            return
        patience = found.answer_within
        row = SpentBudget(
            spent_id=SpentId(self._world.new_id("b")),
            key=level.budget.key,
            resource=level.resource,
            name=level.budget.name,
            run_id=found.run_id,
            task_id=found.task_id,
            limit=level.limit,
            spent=level.spent,
            asked_at=tx.now,
            deadline_at=None if patience is None else tx.now + patience,
        )
        tx.brakes.put_spent(row)
        tx.log(_told(BudgetAsked, row, limit=row.limit, spent=row.spent, deadline_at=row.deadline_at))

    # --- Answers ---

    def answer(self, tx: Tx, body: AnswerSpent, principal: str) -> None:
        """Take in what a person says. A deadline that has passed while nobody led has stopped nothing yet: what they say holds.

        Raises:
            NotFound: there is no such budget.
            NotPossibleNow: it is settled already, or it would be spent even then.
        """
        row = tx.brakes.get_spent(body.spent_id)
        if row is None:
            raise NotFound(f"there is no spent budget {body.spent_id}")
        if row.state is not SpentState.OPEN:
            raise NotPossibleNow(f"the budget {row.spent_id} was settled already: {row.state.value}", remedy=LISTS)
        if past(row.key, tx.now):
            raise NotPossibleNow(
                f"the budget {row.spent_id} has begun anew by itself: what waited for it goes on", remedy=LISTS
            )
        if _over(tx, row):
            # Nobody led who would have seen it.
            self._is_over(tx, row)
            message = f"the budget {row.spent_id} is asked about no more: nobody spends under the budget of {row.name} any more"
            raise NotPossibleNow(message, remedy=LISTS)
        if body.answer is SpentAnswer.STOP:
            self._stop(tx, row, principal, body.reason)
            return
        limit = row.limit + body.more
        if not body.more > 0 or not limit > row.spent:
            least = amount_told(row.resource, row.spent - row.limit)
            message = f"the budget of {row.name} would still be spent ({row.amounts}); raise it by more than {least}"
            raise NotPossibleNow(message, remedy=f"kapelle answer {row.spent_id} raise AMOUNT")
        waiting = list(waiting_for(tx, row))
        raised = settle(row, SpentState.RAISED, tx.now, more=body.more, by=principal, note=body.reason)
        tx.brakes.put_spent(raised)
        said = {"more": body.more, "principal": principal, "reason": body.reason}
        tx.log(_told(BudgetRaised, row, limit=limit, spent=row.spent, **said))
        _wake(tx, [task for _, task in waiting])

    def _stop(self, tx: Tx, row: SpentBudget, principal: str, reason: str) -> None:
        waiting = list(waiting_for(tx, row))
        stopped = settle(row, SpentState.STOPPED, tx.now, by=principal, note=reason)
        tx.brakes.put_spent(stopped)
        said = {"tasks": len(waiting), "principal": principal, "reason": reason}
        tx.log(_told(BudgetStopped, row, limit=row.limit, spent=row.spent, **said))
        for _, task in waiting:
            self.give_up(tx, tx.tasks.get(task.task_id) or task, final_words(stopped))

    def give_up(self, tx: Tx, task: Task, why: str) -> None:
        """Let *task* fail, whose budget is spent and stays so; its work is kept by whoever clears its workspace away."""
        if task.state in TERMINAL:
            return
        attempt = tx.attempts.get(task.attempt_id) if task.attempt_id is not None else None
        if attempt is not None and attempt.ended_at is None and task.state is TaskState.RUNNING:
            give_up_attempt(tx, task, attempt, Outcome.BUDGET, why, chance=self._world.chance.share())
            return
        finish(tx, task, TaskState.FAILED, failure=Failure(kind=Outcome.BUDGET.value, message=why))

    # --- Time ---

    def settle(self, tx: Tx) -> tuple[Brakes, datetime | None]:
        """Let time pass for all that is asked; return what stands then, and when the next of it is due."""
        later: list[datetime] = []
        for row in tx.brakes.spent():
            if _over(tx, row):
                self._is_over(tx, row)
            elif row.state is SpentState.OPEN and row.deadline_at is not None:
                if row.deadline_at <= tx.now:
                    self._stop(tx, row, "", "")
                else:
                    later.append(row.deadline_at)
        return brakes_of(tx, tx.now), min(later, default=None)

    @staticmethod
    def _is_over(tx: Tx, row: SpentBudget) -> None:
        if row.state is not SpentState.OPEN:
            tx.brakes.put_spent(replace(row, over_at=tx.now))
            return
        tx.brakes.put_spent(settle(row, SpentState.WITHDRAWN, tx.now))
        tx.log(_told(BudgetWithdrawn, row))


def _told(kind: type[Asked], row: SpentBudget, **more: Any) -> Asked:
    """Return the event of *kind* that tells of *row*; *more* is what only this kind says."""
    about: dict[str, Any] = {"spent_id": row.spent_id, "budget": row.name, "resource": row.resource.value}
    return kind(run_id=row.run_id, task_id=row.task_id, **about, **more)


def waiting_for(view: View, row: SpentBudget) -> Iterator[tuple[Run, Task]]:
    """Yield the tasks that wait since nothing is left under *row*."""
    its = (each for each in view.brakes.spent() if each.spent_id == row.spent_id or each.state is SpentState.RAISED)
    # Of the period in which it was asked, whenever it is looked at.
    alone = Brakes(now=row.asked_at, spent=tuple(its))
    for run in _spending_under(view, row):
        waiting = (task for kind in BRAKED for task in view.tasks.waiting(run.run_id, kind))
        yield from ((run, task) for task in waiting if alone.spent_by(run, task) is not None)


def _spending_under(view: View, row: SpentBudget) -> Iterator[Run]:
    """Yield the open runs of which a task may spend under *row*."""
    scope, _, whose = row.key.partition(":")
    if scope == Scope.TASK:
        task = view.tasks.get(TaskId(whose))
        whose = "" if task is None else str(task.run_id)
    if scope in {Scope.TASK, Scope.RUN}:
        run = view.runs.get(RunId(whose))
        yield from () if run is None or run.state in RUN_TERMINAL else (run,)
        return
    yield from (run for run in view.runs.open() if row.key in standing_keys(run, row.asked_at))


def _wake(tx: Tx, tasks: Sequence[Task]) -> None:
    """Let *tasks* be looked at at once."""
    for task in tasks:
        if task.waits_for is not None and task.due_at is not None:
            wait(tx, task, task.waits_for, task.detail)


def _over(tx: Tx, row: SpentBudget) -> bool:
    """Say whether nothing can be spent any more under *row*."""
    scope, _, whose = row.key.partition(":")
    match Scope(scope):
        case Scope.TASK:
            task = tx.tasks.get(TaskId(whose))
            return task is None or task.state in TERMINAL
        case Scope.RUN:
            run = tx.runs.get(RunId(whose))
            # One of which nothing is left to do spends nothing, though it has not ended yet.
            return run is None or run.state in RUN_TERMINAL or not run.unfinished
        case _:
            return not _present(tx, row)


def _present(tx: Tx, row: SpentBudget) -> bool:
    """Say whether *row* is of the present period, and somebody is there who might spend under it.

    Asked at every dispatch for as long as a question is open: no task is looked at, however many there are.
    """
    if row.state is not SpentState.OPEN or past(row.key, tx.now):
        return not past(row.key, tx.now)
    return any(row.key in standing_keys(run, tx.now) for run in tx.runs.open())
