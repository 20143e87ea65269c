"""Dispatch: give agents to tasks that could run now, and agents back to attempts that lost theirs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from kapelle.core.account import Account, next_change
from kapelle.core.agent import Agent
from kapelle.core.attempt import Attempt, Outcome, PromptRecord
from kapelle.core.dispatch import Placement, place, refusal_of, take
from kapelle.core.errors import TemplateFailed
from kapelle.core.events import AttemptEnded, AttemptStarted
from kapelle.core.frozen import replace
from kapelle.core.ids import AccountId, AgentId, AttemptId, PromptId
from kapelle.core.placing import Group, Of, Tally
from kapelle.core.pool import Spare, SpareState, fit_of, fits, make_of, suits
from kapelle.core.ports import Measure
from kapelle.core.run import Run
from kapelle.core.store import Tx
from kapelle.core.task import Failure, Task, TaskState, Wait, advance
from kapelle.core.template import is_plain, plain
from kapelle.engine.accounts import Accounts
from kapelle.engine.demands import Around, Reckoning
from kapelle.engine.due import WORD, Candidate, DueTasks
from kapelle.engine.ending import finish, move, moved_event, wait
from kapelle.engine.handing import BY_HAND
from kapelle.engine.scope import scope_of
from kapelle.engine.spares import give
from kapelle.engine.spending import Spending
from kapelle.engine.words import carry_over
from kapelle.engine.world import World

LOOK = timedelta(seconds=5)
"""How long until memory that was short is measured again."""


class DispatchStage:
    """Places tasks; everything it does is in the store, the next stage starts the agents."""

    name = "dispatch"

    def __init__(self, world: World) -> None:
        self._world = world
        self._accounts = Accounts(world)
        self._spending = Spending(world)
        self._due = DueTasks(world)
        self._counts = False
        """Whether an account is not open, so that starts are counted."""
        self._given: Counter[Group] = Counter()
        """How many agents of each config this leader has given out."""
        self._measure: Measure | None = None
        self._measured_at: datetime | None = None

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        if self._measured_at is None or now >= self._measured_at + WORD or now < self._measured_at:
            self._measure, self._measured_at = await self._world.host.measure(), now
        again, later = await self._world.store.transact(self._decide, term=self._world.term)
        return now if again else later

    def _decide(self, tx: Tx) -> tuple[bool, datetime | None]:
        closed = self._accounts.settle(tx)
        self._counts = bool(closed)
        brakes, answer_by = self._spending.settle(tx)
        self._due.begin(brakes)
        reckoning = Reckoning(tx, self._around(), tx.now, closed, self._given)
        returning, wake = self._due.returning(tx, reckoning)
        # What a person gave to a config goes before all others, too.
        returning += self._due.given(tx, reckoning)
        if not returning and not tx.tasks.due(tx.now, 1):
            # As in most steps: what room there is need not be known.
            return self._due.gave_up, _first([wake, answer_by, tx.tasks.next_due_at(tx.now), *self._changes(tx, closed)])
        room = reckoning.room()
        tally = Tally(room)
        for candidate in returning:
            if refusal_of(candidate.demand, tally) is None:
                take(candidate.demand, tally)
        due, decided = self._due.due(tx, reckoning, tally)
        by_id = {candidate.task.task_id: candidate for candidate in (*due, *returning)}
        placed, waiting = place([candidate.demand for candidate in by_id.values()], room)
        for placement in placed:
            self._place(tx, placement, by_id[placement.task_id])
            if self._due.evaluated_long:
                break  # the rest stays due
        for entry in waiting:
            candidate = by_id[entry.task_id]
            wait(tx, candidate.task, entry.wait, entry.detail, until=candidate.task.due_at)
        later = [wake, answer_by, tx.tasks.next_due_at(tx.now), *self._changes(tx, closed)]
        if any(entry.rule == "memory" for entry in waiting):
            # Nobody tells when other programs give some back.
            later.append(tx.now + LOOK)
        return bool(placed or decided), _first(later)

    def _around(self) -> Around:
        world = self._world
        settings = world.settings
        return Around(
            host=world.host.name,
            slots=settings.slots,
            driver=world.driver,
            measure=self._measure,
            keep_free=settings.keep_free,
        )

    @staticmethod
    def _changes(tx: Tx, closed: Mapping[AccountId, Account]) -> list[datetime | None]:
        return [next_change(tx.accounts.get(account_id) or found, tx.now) for account_id, found in closed.items()]

    def _text(self, tx: Tx, task: Task, run: Run) -> str:
        prompt = task.spec.prompt
        return plain(prompt) if is_plain(prompt) else self._world.evaluator.render(prompt, scope_of(tx, run.spec, task))

    def _place(self, tx: Tx, placement: Placement, candidate: Candidate) -> None:
        if candidate.demand.slotless:
            self._do_at_once(tx, candidate.task, placement)
            return
        if candidate.attempt is not None:
            if candidate.attempt.held_by:
                wait(tx, candidate.task, Wait.PERSON, candidate.task.detail)
            else:
                wait(tx, candidate.task, None)
            self._count_start(tx, candidate, candidate.attempt)
            self._deploy(tx, placement.host, candidate.task, candidate.attempt)
            return
        try:
            text = self._text(tx, candidate.task, candidate.run)
        except TemplateFailed as error:
            finish(tx, candidate.task, TaskState.FAILED, failure=Failure(kind="template", message=str(error)))
            return
        spare = self._spare(tx, candidate, placement.config)
        attempt, _ = self._begin(tx, candidate.task, placement, spare)
        self._given[Group(Of.CONFIG, placement.config, candidate.run.spec.project)] += 1
        self._count_start(tx, candidate, attempt)
        prompt_id = PromptId(self._world.chance.uuid())
        tx.attempts.put_prompt(PromptRecord(prompt_id=prompt_id, attempt_id=attempt.attempt_id, round=0, text=text))
        carry_over(self._world, tx, candidate.task, attempt)
        self._deploy(tx, placement.host, candidate.task, attempt, spare)
        if spare is not None:
            give(tx, spare, candidate.run, candidate.task)

    def _spare(self, tx: Tx, candidate: Candidate, config: str) -> Spare | None:
        """Return the spare that has waited longest for a task like this one; None where there is none.

        One that had a task of the same run goes first: nobody else has any use for it.
        """
        there = [spare for spare in tx.spares.all() if spare.state is SpareState.READY and spare.term == tx.term]
        spec = candidate.run.spec
        make = make_of(spec, config) if there and suits(candidate.task.spec, spec.upstream) else None
        if make is None:
            return None
        fit, run_id = fit_of(make), candidate.run.run_id
        there.sort(key=lambda spare: spare.run_id is None)
        return next((spare for spare in there if fits(spare, fit, run_id, candidate.task.spec)), None)

    def _count_start(self, tx: Tx, candidate: Candidate, attempt: Attempt) -> None:
        program = candidate.run.spec.config(attempt.config).program
        if self._counts and self._world.driver(program).capabilities.uses_gateway:
            self._accounts.begun(tx, candidate.run, attempt.attempt_id)

    def _begin(self, tx: Tx, task: Task, placement: Placement, spare: Spare | None = None) -> tuple[Attempt, Task]:
        """Begin the task's next attempt, with the ids of *spare*; return it and the task as it is now."""
        attempt = Attempt(
            attempt_id=AttemptId(self._world.new_id("a")) if spare is None else spare.attempt_id,
            task_id=task.task_id,
            run_id=task.run_id,
            number=self._number(tx, task),
            term=tx.term,
            config=placement.config,
            conversation_id=self._world.chance.uuid() if spare is None else spare.conversation_id,
            workspace_id=None if spare is None else spare.workspace_id,
            home=None if spare is None else spare.home,
            started_at=tx.now,
        )
        tx.attempts.put(attempt)
        # What an earlier attempt said is not this one's: its work is not there any more.
        assigned = replace(
            advance(task, TaskState.ASSIGNED, tx.now),
            attempts=task.attempts + 1,
            attempt_id=attempt.attempt_id,
            round=0,
            summary="",
            result=None,
        )
        tx.tasks.put(assigned)
        tx.log(
            moved_event(assigned, task.state),
            AttemptStarted(
                run_id=task.run_id,
                task_id=task.task_id,
                attempt_id=attempt.attempt_id,
                number=attempt.number,
                config=attempt.config,
                host=placement.host,
                considered=placement.considered,
            ),
        )
        return attempt, assigned

    @staticmethod
    def _number(tx: Tx, task: Task) -> int:
        if task.started_at is None:
            return 1
        earlier: Sequence[Attempt] = tx.attempts.of_task(task.task_id)
        return 1 + max((attempt.number for attempt in earlier), default=0)

    def _deploy(self, tx: Tx, host: str, task: Task, attempt: Attempt, spare: Spare | None = None) -> None:
        """Give the attempt an agent; it is started by the execute stage, or takes on the task where it was a *spare*."""
        agent_id = AgentId(self._world.new_id("g")) if spare is None else spare.agent_id
        token = f"kapelle-{self._world.chance.bits(160):040x}" if spare is None else spare.token
        tx.agents.put(
            Agent(
                agent_id=agent_id,
                run_id=task.run_id,
                task_id=task.task_id,
                attempt_id=attempt.attempt_id,
                term=tx.term,
                config=attempt.config,
                host=host,
                folder=self._world.folders.agent(agent_id) if spare is None else spare.folder,
                process=None if spare is None else spare.process,
                offset=0 if spare is None else spare.offset,
                deadline_at=tx.now + (BY_HAND if attempt.held_by else task.spec.timeout),
                created_at=tx.now,
                token=token,
                by_hand=bool(attempt.held_by),
            )
        )

    def _do_at_once(self, tx: Tx, task: Task, placement: Placement) -> None:
        """Take a task of a driver without process through all its states in this transaction (benchmarks)."""
        attempt, current = self._begin(tx, task, placement)
        for state in (TaskState.RUNNING, TaskState.VALIDATING):
            current = move(tx, current, state)
        tx.attempts.put(replace(attempt, ended_at=tx.now, outcome=Outcome.SUCCEEDED))
        tx.log(
            AttemptEnded(
                run_id=task.run_id, task_id=task.task_id, attempt_id=attempt.attempt_id, outcome=Outcome.SUCCEEDED.value
            )
        )
        finish(tx, current, TaskState.COMPLETED)


def _first(moments: Iterable[datetime | None]) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)
