"""Dispatch: give agents to tasks that could run now, and agents back to attempts that lost theirs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from kapelle.core.account import Account, account_of, may_start, next_change, told
from kapelle.core.agent import Agent
from kapelle.core.attempt import Attempt, Outcome, PromptRecord
from kapelle.core.dispatch import Demand, Placement, Room, place
from kapelle.core.errors import TemplateFailed
from kapelle.core.events import AttemptEnded, AttemptStarted
from kapelle.core.frozen import frozen
from kapelle.core.ids import AccountId, AgentId, AttemptId, PromptId, RunId
from kapelle.core.run import Run
from kapelle.core.store import Tx
from kapelle.core.task import Failure, Task, TaskState, Wait, advance
from kapelle.core.template import is_plain, plain
from kapelle.engine.accounts import Accounts, waits
from kapelle.engine.ending import finish, move, moved_event, run_of, wait
from kapelle.engine.scope import scope_of
from kapelle.engine.world import World


@frozen
class _Candidate:
    demand: Demand
    task: Task
    run: Run
    attempt: Attempt | None = None
    """For a task that only needs its agent back."""


PAGES = 20
"""Batches of due tasks that are looked at in one step, at most."""
FEW = 32
"""Due tasks that are looked at when there is no room for any: in front of those that wait already, others may have come."""
WORD = timedelta(seconds=1)
"""How long a task may wait before what it waits for is written down."""


class DispatchStage:
    """Places tasks; everything it does is in the store, the next stage starts the agents."""

    name = "dispatch"

    def __init__(self, world: World) -> None:
        self._world = world
        self._accounts = Accounts(world)
        self._closed: Mapping[AccountId, Account] = {}
        """The accounts that are not open, in the transaction that is running."""
        self._began = world.clock.now()
        """When this step began to decide."""
        self._thorough_at: datetime | None = None
        """When a whole batch was last looked at, room or no room."""

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        again, later = await self._world.store.transact(self._decide, term=self._world.term)
        return now if again else later

    def _decide(self, tx: Tx) -> tuple[bool, datetime | None]:
        runs: dict[str, Run] = {}
        self._closed = self._accounts.settle(tx)
        self._began = self._world.clock.now()
        returning, wake = self._returning(tx, runs)
        due, decided = self._due(tx, runs)
        placed, waiting = place([candidate.demand for candidate in (*returning, *due)], self._room(tx, runs))
        by_id = {candidate.task.task_id: candidate for candidate in (*returning, *due)}
        for placement in placed:
            self._place(tx, placement, by_id[placement.task_id])
            if self._evaluated_long():
                break  # the rest stays due
        for entry in waiting:
            candidate = by_id[entry.task_id]
            wait(tx, candidate.task, entry.wait, entry.detail, until=candidate.task.due_at)
        later = [moment for moment in (wake, tx.tasks.next_due_at(tx.now), *self._changes(tx)) if moment is not None]
        return bool(placed or decided), min(later, default=None)

    def _changes(self, tx: Tx) -> list[datetime | None]:
        return [next_change(tx.accounts.get(account_id) or found, tx.now) for account_id, found in self._closed.items()]

    def _run(self, tx: Tx, run_id: str, runs: dict[str, Run], task: Task) -> Run:
        if run_id not in runs:
            runs[run_id] = run_of(tx, task)
        return runs[run_id]

    def _returning(self, tx: Tx, runs: dict[str, Run]) -> tuple[list[_Candidate], datetime | None]:
        found: list[_Candidate] = []
        wake: datetime | None = None
        for attempt in tx.attempts.without_agent():
            task = tx.tasks.get(attempt.task_id)
            if task is None:
                continue
            if task.due_at is not None and task.due_at > tx.now:
                wake = task.due_at if wake is None else min(wake, task.due_at)
                continue
            run = self._run(tx, task.run_id, runs, task)
            if self._held_up(tx, task, run):
                continue
            demand = self._demand(task, run, attempt.config, returning=True)
            found.append(_Candidate(demand=demand, task=task, run=run, attempt=attempt))
        return found, wake

    def _due(self, tx: Tx, runs: dict[str, Run]) -> tuple[list[_Candidate], bool]:
        """Return the tasks that could run now, and whether others were ended instead: those that need them come due by that.

        While there is room, and what was found cannot use it (a kind of agent at its limit, a missing key), those behind it
        are looked at too: nobody waits for want of somebody else's agent.
        """
        found: list[_Candidate] = []
        decided, hopeful, last = False, 0, None
        live = tx.agents.live()
        by_config, by_run = Counter(agent.config for agent in live), Counter(agent.run_id for agent in live)
        by_account = self._starts(tx)
        room, batch = self._world.settings.slots - len(live), self._world.settings.batch
        size, looked = self._first_page(tx.now, room), 0
        while looked < PAGES * batch:
            tasks = tx.tasks.due(tx.now, size, last)
            slotless = 0
            for task in tasks:
                last = task
                run = self._run(tx, task.run_id, runs, task)
                if task.spec.when is not None:
                    if self._evaluated_long():
                        return found, True
                    if not self._wanted(tx, task, run):
                        decided = True
                        continue
                if self._held_up(tx, task, run):
                    continue
                demand = self._demand(task, run, task.spec.agent, returning=False)
                slotless += demand.slotless
                fits = demand.slotless or (_of_account(demand, by_account) and _fits(demand, run, by_config, by_run))
                hopeful += fits
                if fits or looked == 0:
                    found.append(_Candidate(demand=demand, task=task, run=run))
            looked += len(tasks)
            # Those that take no room go on to be placed, up to a whole batch.
            more = hopeful < room or (slotless == len(tasks) and looked < batch)
            if len(tasks) < size or not more:
                break
            size = batch
        return found, decided

    def _first_page(self, now: datetime, room: int) -> int:
        """Return how many due tasks to look at first: few when none of them can be placed, however many wait."""
        batch = self._world.settings.batch
        if room <= 0 and self._thorough_at is not None and now < self._thorough_at + WORD:
            return min(FEW, batch)
        self._thorough_at = now
        return batch

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

    def _text(self, tx: Tx, task: Task, run: Run) -> str:
        prompt = task.spec.prompt
        return plain(prompt) if is_plain(prompt) else self._world.evaluator.render(prompt, scope_of(tx, run.spec, task))

    def _evaluated_long(self) -> bool:
        """Say whether templates have taken up so much of this step that the other stages must have their turn."""
        return self._world.clock.now() - self._began > self._world.settings.evaluating

    def _held_up(self, tx: Tx, task: Task, run: Run) -> bool:
        """Say whether something other than room keeps the task from an agent, and write down what."""
        driver = self._world.driver(run.spec.config(task.spec.agent).program)
        if not driver.capabilities.uses_gateway:
            return False
        account = self._closed.get(account_of(run.spec.upstream).account_id) if self._closed else None
        if account is not None and account.shut:
            kind, detail, until = waits(account)
            wait(tx, task, kind, detail, until=until)
            return True
        reference = run.spec.upstream.credential
        if reference is None or self._world.credentials.resolve(reference):
            return False
        wait(tx, task, Wait.CREDENTIALS, f"{reference} is not set where Kapelle leads", until=task.due_at)
        return True

    def _demand(self, task: Task, run: Run, config_name: str, *, returning: bool) -> Demand:
        config = run.spec.config(config_name)
        capabilities = self._world.driver(config.program).capabilities
        return Demand(
            task_id=task.task_id,
            run_id=task.run_id,
            rank=task.rank,
            config=config_name,
            config_limit=config.limit,
            writes=task.spec.writes,
            returning=returning,
            account=account_of(run.spec.upstream).account_id if self._closed and capabilities.uses_gateway else "",
            slotless=capabilities.immediate,
        )

    def _room(self, tx: Tx, runs: dict[str, Run]) -> Room:
        live = tx.agents.live()
        writing: list[str] = []
        for agent in live:
            task = tx.tasks.get(agent.task_id)
            if task is not None:
                writing.extend(task.spec.writes)
        limits = {run.run_id: run.spec.limits.agents for run in runs.values() if run.spec.limits.agents is not None}
        return Room(
            host=self._world.host.name,
            slots=self._world.settings.slots,
            live=len(live),
            live_by_run=Counter(agent.run_id for agent in live),
            live_by_config=Counter(agent.config for agent in live),
            run_limits=limits,
            starts_by_account=self._starts(tx),
            why_by_account={account_id: told(found) for account_id, found in self._closed.items()},
            writing=tuple(writing),
        )

    def _starts(self, tx: Tx) -> dict[str, int]:
        bounds = {account_id: may_start(found, tx.now) for account_id, found in self._closed.items()}
        return {account_id: bound for account_id, bound in bounds.items() if bound is not None}

    def _place(self, tx: Tx, placement: Placement, candidate: _Candidate) -> None:
        if candidate.demand.slotless:
            self._do_at_once(tx, candidate.task)
            return
        if candidate.attempt is not None:
            wait(tx, candidate.task, None)
            self._count_start(tx, candidate, candidate.attempt)
            self._deploy(tx, placement.host, candidate.task, candidate.attempt)
            return
        try:
            text = self._text(tx, candidate.task, candidate.run)
        except TemplateFailed as error:
            finish(tx, candidate.task, TaskState.FAILED, failure=Failure(kind="template", message=str(error)))
            return
        attempt, _ = self._begin(tx, candidate.task)
        self._count_start(tx, candidate, attempt)
        prompt_id = PromptId(self._world.chance.uuid())
        tx.attempts.put_prompt(PromptRecord(prompt_id=prompt_id, attempt_id=attempt.attempt_id, round=0, text=text))
        self._deploy(tx, placement.host, candidate.task, attempt)

    def _count_start(self, tx: Tx, candidate: _Candidate, attempt: Attempt) -> None:
        if candidate.demand.account:
            self._accounts.begun(tx, candidate.run, attempt.attempt_id)

    def _begin(self, tx: Tx, task: Task) -> tuple[Attempt, Task]:
        """Begin the task's next attempt; return it and the task as it is now."""
        attempt = Attempt(
            attempt_id=AttemptId(self._world.new_id("a")),
            task_id=task.task_id,
            run_id=task.run_id,
            number=self._number(tx, task),
            term=tx.term,
            config=task.spec.agent,
            conversation_id=self._world.chance.uuid(),
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
            ),
        )
        return attempt, assigned

    @staticmethod
    def _number(tx: Tx, task: Task) -> int:
        if task.started_at is None:
            return 1
        earlier: Sequence[Attempt] = tx.attempts.of_task(task.task_id)
        return 1 + max((attempt.number for attempt in earlier), default=0)

    def _deploy(self, tx: Tx, host: str, task: Task, attempt: Attempt) -> None:
        """Give the attempt an agent; it is started by the execute stage."""
        agent_id = AgentId(self._world.new_id("g"))
        tx.agents.put(
            Agent(
                agent_id=agent_id,
                run_id=task.run_id,
                task_id=task.task_id,
                attempt_id=attempt.attempt_id,
                term=tx.term,
                config=attempt.config,
                host=host,
                folder=self._world.folders.agent(agent_id),
                deadline_at=tx.now + task.spec.timeout,
                created_at=tx.now,
                token=f"kapelle-{self._world.chance.bits(160):040x}",
            )
        )

    def _do_at_once(self, tx: Tx, task: Task) -> None:
        """Take a task of a driver without process through all its states in this transaction (benchmarks)."""
        attempt, current = self._begin(tx, task)
        for state in (TaskState.RUNNING, TaskState.VALIDATING):
            current = move(tx, current, state)
        tx.attempts.put(replace(attempt, ended_at=tx.now, outcome=Outcome.SUCCEEDED))
        tx.log(
            AttemptEnded(
                run_id=task.run_id, task_id=task.task_id, attempt_id=attempt.attempt_id, outcome=Outcome.SUCCEEDED.value
            )
        )
        finish(tx, current, TaskState.COMPLETED)


def _of_account(demand: Demand, left: dict[str, int]) -> bool:
    """Say whether its account lets one more agent start, and count it."""
    if demand.account not in left:
        return True
    left[demand.account] -= 1
    return left[demand.account] >= 0


def _fits(demand: Demand, run: Run, by_config: Counter[str], by_run: Counter[RunId]) -> bool:
    """Say whether neither its kind of agent nor its run is at its limit, and count it."""
    if demand.config_limit is not None and by_config[demand.config] >= demand.config_limit:
        return False
    if run.spec.limits.agents is not None and by_run[demand.run_id] >= run.spec.limits.agents:
        return False
    by_config[demand.config] += 1
    by_run[demand.run_id] += 1
    return True
