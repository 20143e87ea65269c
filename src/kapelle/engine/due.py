"""Which tasks could run now: those whose attempt lost its agent, the due ones by rank, and the first of every run.

Never all that wait: partial indexes find the first few hundred, and jump from run to run for those whose run has few agents.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from kapelle.core.attempt import Attempt
from kapelle.core.dispatch import Demand, refusal_of, take
from kapelle.core.errors import TemplateFailed
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import RunId
from kapelle.core.placing import Tally
from kapelle.core.run import Run
from kapelle.core.store import Tx
from kapelle.core.task import TERMINAL, Failure, Task, TaskState, Wait
from kapelle.engine.demands import Reckoning
from kapelle.engine.ending import finish, run_of, wait
from kapelle.engine.holds import Brakes, hold_of
from kapelle.engine.scope import scope_of
from kapelle.engine.spending import Spending
from kapelle.engine.steering import LIFTED
from kapelle.engine.world import World


@frozen
class Candidate:
    """A task that could run now."""

    demand: Demand
    task: Task
    run: Run
    attempt: Attempt | None = None
    """For a task that only needs its agent back."""


PAGES = 20
"""Batches of due tasks that are looked at in one step, at most."""
FEW = 32
"""Due tasks that are looked at when there is no room for any: in front of those that wait already, others may have come."""
RUNS = 32
"""Runs of whose tasks the first are looked at in one step, beside those that come first by rank."""
FIRST = 8
"""How many of each, at most."""
WORD = timedelta(seconds=1)
"""How long a task may wait before what it waits for is written down."""


class DueTasks:
    """Reads the tasks that could run now."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._thorough_at: datetime | None = None
        """When a whole batch was last looked at, room or no room."""
        self._behind: RunId | None = None
        """The run whose tasks were looked at last."""
        self._began = world.clock.now()
        """When this step began to decide."""
        self._spending = Spending(world)
        self._brakes = Brakes(now=self._began)
        self._gave_up = False
        """Whether tasks were ended in this step since nothing may be spent on them any more."""

    def begin(self, brakes: Brakes) -> None:
        """Begin a step; *brakes* stand in the store now."""
        self._began = self._world.clock.now()
        self._brakes, self._gave_up = brakes, False

    @property
    def gave_up(self) -> bool:
        """Whether tasks were ended in this step since nothing may be spent on them any more."""
        return self._gave_up

    @property
    def evaluated_long(self) -> bool:
        """Whether templates have taken up so much of this step that the other stages must have their turn."""
        return self._world.clock.now() - self._began > self._world.settings.evaluating

    # --- Those who return ---

    def returning(self, tx: Tx, reckoning: Reckoning) -> tuple[list[Candidate], datetime | None]:
        """Return the tasks that only need their agent back, and when the next of them does."""
        found: list[Candidate] = []
        wake: datetime | None = None
        for attempt in tx.attempts.without_agent():
            task = tx.tasks.get(attempt.task_id)
            if task is None:
                continue
            if task.due_at is not None and task.due_at > tx.now:
                wake = task.due_at if wake is None else min(wake, task.due_at)
                continue
            if task.paused:
                wait(tx, task, Wait.PAUSED, LIFTED.format(task.name))
                continue
            run = reckoning.run(task.run_id) or run_of(tx, task)
            if not self._free(tx, task, run, (attempt.config,), reckoning):
                continue
            demand = reckoning.demand(task, run, (attempt.config,), returning=True)
            found.append(Candidate(demand=demand, task=task, run=run, attempt=attempt))
        return found, wake

    # --- Those who begin ---

    def given(self, tx: Tx, reckoning: Reckoning) -> list[Candidate]:
        """Return the tasks that a person gave to a config and that could run now."""
        found: list[Candidate] = []
        for assignment in tx.spares.assignments():
            task = tx.tasks.get(assignment.task_id)
            if task is None or task.state in TERMINAL:
                tx.spares.unassign(assignment.task_id)
                continue
            run = reckoning.run(task.run_id) or run_of(tx, task)
            later = task.due_at is not None and task.due_at > tx.now
            if task.state is not TaskState.PENDING or task.unmet or later or run.paused or task.paused:
                continue
            if task.spec.approval and not task.approved:
                continue
            if task.spec.when is not None and not self._wanted(tx, task, run):
                continue
            if not self._free(tx, task, run, (assignment.config,), reckoning):
                continue
            demand = reckoning.demand(task, run, (assignment.config,), returning=True)
            demand = replace(demand, forced=assignment.forced)
            found.append(Candidate(demand=demand, task=task, run=run))
        return found

    def due(self, tx: Tx, reckoning: Reckoning, tally: Tally) -> tuple[list[Candidate], bool]:
        """Return the tasks that could run now, and whether others were ended instead: those that need them come due by that.

        While there is room, and what was found cannot use it (a kind of agent at its limit, a missing key), those behind it
        are looked at too: nobody waits for want of somebody else's agent. *tally* counts what was found.
        """
        found: list[Candidate] = []
        decided, hopeful, last = False, 0, None
        room, batch = tally.free, self._world.settings.batch
        size, looked = self._first_page(tx.now, roomy=room > 0), 0
        while looked < PAGES * batch:
            tasks = tx.tasks.due(tx.now, size, last)
            slotless, short = 0, False
            heads = self._heads(tx, tasks) if room and looked == 0 and len(tasks) == size else ()
            for task in (*tasks, *heads):
                run = reckoning.run(task.run_id) or run_of(tx, task)
                if task.spec.when is not None:
                    if self.evaluated_long:
                        return found, True
                    if not self._wanted(tx, task, run):
                        decided = True
                        continue
                free = self._free(tx, task, run, task.spec.choices, reckoning)
                if not free:
                    continue
                made = Candidate(demand=reckoning.demand(task, run, free, returning=False), task=task, run=run)
                slotless += made.demand.slotless
                refusal = None if made.demand.slotless else refusal_of(made.demand, tally)
                short = short or (refusal is not None and refusal.rule in {"memory", "cpus"})
                if refusal is None:
                    hopeful += 1
                    if not made.demand.slotless:
                        take(made.demand, tally)
                if refusal is None or looked == 0:
                    found.append(made)
            last = tasks[-1] if tasks else None
            looked += len(tasks)
            # Those that take no room go on to be placed, up to a whole batch.
            more = (hopeful < room and not short) or (slotless == len(tasks) and looked < batch)
            if len(tasks) < size or not more:
                break
            size = batch
        return found, decided or self._gave_up

    def _heads(self, tx: Tx, page: Sequence[Task]) -> Iterator[Task]:
        """Yield the first due tasks of runs of which *page* holds none: by rank alone, one long run would hide all others."""
        seen = {task.run_id for task in page}
        runs = list(tx.tasks.runs_due(RUNS, self._behind))
        if len(runs) < RUNS and self._behind is not None:
            runs += [run_id for run_id in tx.tasks.runs_due(RUNS - len(runs)) if run_id not in runs]
        self._behind = runs[-1] if len(runs) >= RUNS else None
        for run_id in runs:
            if run_id not in seen:
                yield from tx.tasks.due_of_run(run_id, tx.now, FIRST)

    def _first_page(self, now: datetime, *, roomy: bool) -> int:
        """Return how many due tasks to look at first: few when none of them can be placed, however many wait."""
        batch = self._world.settings.batch
        if not roomy and self._thorough_at is not None and now < self._thorough_at + WORD:
            return min(FEW, batch)
        self._thorough_at = now
        return batch

    # --- What else holds them up ---

    def _wanted(self, tx: Tx, task: Task, run: Run) -> bool:
        """Decide the task's ``when``; a task that is not wanted is skipped, one that cannot be decided fails."""
        condition = task.spec.when or ""
        try:
            if condition == "true" or self._world.evaluator.holds(condition, scope_of(tx, run.spec, task)):
                return True
        except TemplateFailed as error:
            finish(tx, task, TaskState.FAILED, failure=Failure(kind="template", message=str(error)))
            return False
        finish(tx, task, TaskState.SKIPPED, note=f"when: {condition} is false")
        return False

    def _free(self, tx: Tx, task: Task, run: Run, configs: Sequence[str], reckoning: Reckoning) -> tuple[str, ...]:
        """Return those of *configs* that nothing but room keeps from the task; where there are none, write down what does."""
        holds = {name: hold_of(self._world, self._brakes, reckoning.closed, run, task, name) for name in configs}
        free = tuple(name for name, hold in holds.items() if hold is None)
        hold = next(iter(holds.values()))
        if not free and hold is not None and all(each is not None and each.final for each in holds.values()):
            self._spending.give_up(tx, task, hold.detail)
            self._gave_up = True
        elif not free and hold is not None:
            wait(tx, task, hold.wait, hold.detail, until=hold.until)
        return free
