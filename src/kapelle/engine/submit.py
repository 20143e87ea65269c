"""Submit: turn requests into state. The only stage that anybody outside the leader speaks to."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from kapelle.core.accepting import spec_problem
from kapelle.core.errors import KapelleError, NotFound, NotPossibleNow
from kapelle.core.events import (
    ChangeApproved,
    RequestRefused,
    RunPaused,
    RunResumed,
    RunSubmitted,
    TaskApproved,
    TaskSubmitted,
    TaskWaited,
)
from kapelle.core.frozen import replace
from kapelle.core.halt import Halt as StandingHalt
from kapelle.core.ids import HaltId, RunId, TaskId
from kapelle.core.merge import Change, ChangeState, undelivered
from kapelle.core.paths import critical_paths
from kapelle.core.question import QuestionState, settle
from kapelle.core.requests import (
    Answer,
    AnswerSpent,
    Approve,
    Cancel,
    Deploy,
    Halt,
    Pause,
    Reject,
    Request,
    Resume,
    Retry,
    Scale,
    Submit,
    Unhalt,
    Unreadable,
)
from kapelle.core.rule_events import QuestionAnswered
from kapelle.core.run import RUN_TERMINAL, Run, RunState
from kapelle.core.steering import Freeze, HandBack, Send, StopAgent, TakeOver, Thaw
from kapelle.core.store import Edge, Tx
from kapelle.core.task import TERMINAL, Failure, Task, TaskSpec, TaskState, Wait, how_it_ended, rank
from kapelle.engine.accounts import Accounts
from kapelle.engine.asking import no_longer_asks
from kapelle.engine.ending import begins_after, end_run, end_runs, finish, wait
from kapelle.engine.halting import halt, unhalt
from kapelle.engine.retrying import Standings, to_retry
from kapelle.engine.scaling import deploy, scale
from kapelle.engine.spending import Spending
from kapelle.engine.steering import pause_task, resume_task, resume_tasks, steer
from kapelle.engine.world import World

AGENT = "agent:"
"""How the principal of an agent begins."""


class Asked:
    """Requests of the process that leads: they need no commit of their own before they are applied.

    Whoever asked waits until they are settled, and asks again by the store when this process no longer leads.
    """

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def add(self, request: Request) -> None:
        """Let *request* be applied with the next step."""
        self._requests.append(request)

    def take(self) -> list[Request]:
        """Return what was asked since the last call."""
        taken, self._requests = self._requests, []
        return taken

    def give_back(self, requests: list[Request]) -> None:
        """Put *requests* back whose transaction failed."""
        self._requests[:0] = requests


class SubmitStage:
    """Applies requests in the order in which they were asked; *halting* is told of a halt before it is written down."""

    name = "submit"

    def __init__(
        self, world: World, asked: Asked | None = None, halting: Callable[[StandingHalt], None] = lambda _: None
    ) -> None:
        self._world = world
        self._halting = halting
        self._accounts = Accounts(world)
        self._spending = Spending(world)
        self._asked = asked or Asked()

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        asked = self._asked.take()

        def decide(tx: Tx) -> int:
            for request in asked:
                tx.requests.add(request)
            return self._decide(tx)

        try:
            applied = await self._world.store.transact(decide, term=self._world.term)
        except BaseException:
            self._asked.give_back(asked)
            raise
        return now if applied else None

    def _decide(self, tx: Tx) -> int:
        waiting = tx.requests.open()
        for request in waiting:
            refusal = None
            try:
                self._apply(tx, request)
            except KapelleError as error:
                # With what helps: whoever asked sees no more of it than this.
                refusal = error.in_full
                run_id = request.body.run_id
                tx.log(RequestRefused(run_id=run_id, request_id=request.request_id, reason=error.message))
            tx.requests.settle(request.request_id, tx.now, refusal)
        if waiting:
            # With nobody leading this is all that happens: what was cancelled or refused is over then and there.
            end_runs(tx)
        return len(waiting)

    def _apply(self, tx: Tx, request: Request) -> None:
        match request.body:
            case Submit() as body:
                self._submit(tx, body, request.principal)
            case Cancel() as body:
                self._cancel(tx, body)
            case Pause() | Resume() as body:
                self._pause(tx, body, request.principal)
            case Freeze() | Thaw() | StopAgent() | Send() | TakeOver() | HandBack() as body:
                steer(self._world, tx, body, request.principal)
            case Answer() as body:
                _for_a_person(request.principal)
                _answer(tx, body, request.principal)
            case Approve() as body:
                _for_a_person(request.principal)
                self._approve(tx, body, request.principal)
            case Reject() as body:
                _for_a_person(request.principal)
                task, _ = _waiting_for_approval(tx, body.task_id)
                message = body.reason or "a person refused it"
                finish(tx, task, TaskState.REJECTED, failure=Failure(kind="rejected", message=message), note=message)
            case AnswerSpent() as body:
                _for_a_person(request.principal)
                self._spending.answer(tx, body, request.principal)
            case Halt() as body:
                _for_a_person(request.principal)
                self._halting(halt(tx, HaltId(self._world.new_id("h")), request.principal, body.reason))
            case Unhalt() as body:
                _for_a_person(request.principal)
                unhalt(tx, request.principal, body.reason)
            case Retry() as body:
                self._retry(tx, body, request.principal)
            case Scale() as body:
                _for_a_person(request.principal)
                scale(self._world, tx, body, request.principal)
            case Deploy() as body:
                _for_a_person(request.principal)
                deploy(tx, body, request.principal)
            case Unreadable(problem=problem):
                raise NotPossibleNow(f"the request {request.request_id} cannot be read: {problem}")

    def _pause(self, tx: Tx, body: Pause | Resume, principal: str) -> None:
        if isinstance(body, Pause):
            _pause(tx, body, principal)
        else:
            self._resume(tx, body, principal)

    def _resume(self, tx: Tx, body: Resume, principal: str) -> None:
        if body.task_id is not None:
            resume_task(tx, body.task_id, principal)
            return
        run = _open_run(tx, body.run_id)
        _try_delivery_again(tx, run)
        self._accounts.retry_now(tx, run)
        resume_tasks(tx, run, principal)
        tx.runs.pause(run, paused=False)
        tx.log(RunResumed(run_id=run.run_id, principal=principal))

    def _submit(self, tx: Tx, body: Submit, principal: str) -> None:
        if tx.runs.get(body.run_id) is not None:
            return
        if problem := spec_problem(body.spec):
            raise NotPossibleNow(f"the run cannot be accepted: {problem}")
        ids = {spec.name: TaskId(self._world.new_id("t")) for spec in body.spec.tasks}
        self._accept(tx, Run(run_id=body.run_id, spec=body.spec, principal=principal, submitted_at=tx.now), ids, {})

    def _accept(self, tx: Tx, run: Run, ids: dict[str, TaskId], before: dict[str, Task]) -> None:
        """Add *run* with its tasks; *before* are tasks of earlier runs, by name, that are tried again or needed."""
        specs = run.spec.tasks
        tx.runs.add(replace(run, unfinished=len(specs)))
        known = {(took.name, took.config): took for took in tx.history.of_project(run.spec.project)}
        paths = critical_paths(specs, known)
        tasks = [_task(tx, run.run_id, ids, spec, paths[spec.name], before) for spec in specs]
        edges = [Edge(task_id=ids[spec.name], need_id=ids[need]) for spec in specs for need in spec.needs if need in ids]
        edges += [
            Edge(task_id=ids[spec.name], need_id=before[need].task_id)
            for spec in specs
            for need in spec.needs
            if need not in ids and need in before
        ]
        tx.tasks.add(tasks, edges)
        tx.log(RunSubmitted(run_id=run.run_id, name=run.spec.name, tasks=len(specs), principal=run.principal))
        tx.log(*[TaskSubmitted(run_id=run.run_id, task_id=task.task_id, name=task.name) for task in tasks])
        # Nothing else will be heard of these until a person acts.
        asking = [task for task in tasks if task.waits_for is Wait.APPROVAL]
        tx.log(*[TaskWaited(run_id=run.run_id, task_id=task.task_id, waits_for=Wait.APPROVAL) for task in asking])

    def _cancel(self, tx: Tx, body: Cancel) -> None:
        run = _open_run(tx, body.run_id)
        failure = Failure(kind="cancelled", message="a person cancelled it")
        if body.task_id is not None:
            task = tx.tasks.get(body.task_id)
            if task is None:
                raise NotFound(f"there is no task {body.task_id}")
            if task.state in TERMINAL:
                raise NotPossibleNow(f"task {task.name} has ended already: it {how_it_ended(task.state)}")
            finish(tx, task, TaskState.CANCELLED, failure=failure)
            return
        if run.state is RunState.DELIVERING:
            _set_aside(tx, run)
            end_run(tx, run, cancelled=True)
            return
        # From the end of the graph to its beginning: nothing then fails for want of what it needs.
        for task in _dependents_first(tx, tx.tasks.of_run(run.run_id)):
            if task.state not in TERMINAL:
                finish(tx, task, TaskState.CANCELLED, failure=failure)

    def _approve(self, tx: Tx, body: Approve, principal: str) -> None:
        task, change = _waiting_for_approval(tx, body.task_id)
        if change is not None:
            tx.changes.put(replace(change, approved_by=principal))
            change_id = change.change_id
            tx.log(ChangeApproved(run_id=task.run_id, task_id=task.task_id, change_id=change_id, principal=principal))
            wait(tx, task, None)
            return
        approved = replace(task, approved=True)
        tx.tasks.put(approved)
        tx.log(TaskApproved(run_id=task.run_id, task_id=task.task_id, principal=principal))
        wait(tx, approved, begins_after(approved))

    def _retry(self, tx: Tx, body: Retry, principal: str) -> None:
        if tx.runs.get(body.new_run_id) is not None:
            return
        old = tx.runs.get(body.run_id)
        if old is None:
            raise NotFound(f"there is no run {body.run_id}")
        tasks = tx.tasks.of_run(body.run_id)
        standings = Standings(tx)
        chosen = to_retry(tx, tasks, body.task_id, standings)
        if not chosen:
            raise NotPossibleNow(f"nothing in run {old.spec.name} can be retried: all of it completed, or is still going on")
        again = {task.name: task for task in chosen}
        # What they need may be of the run before the last already.
        needed = {need.name: standings.of(need) for task in chosen for need in tx.tasks.needs(task.task_id)}
        spec = replace(old.spec, tasks=tuple(task.spec for task in chosen), base=body.base or old.spec.base)
        run = Run(run_id=body.new_run_id, spec=spec, principal=principal, submitted_at=tx.now)
        ids = {name: TaskId(self._world.new_id("t")) for name in again}
        self._accept(tx, run, ids, needed | again)


def _pause(tx: Tx, body: Pause, principal: str) -> None:
    if body.task_id is not None:
        pause_task(tx, body.task_id, principal)
        return
    run = _open_run(tx, body.run_id)
    tx.runs.pause(run, paused=True)
    tx.log(RunPaused(run_id=run.run_id, principal=principal))


def _for_a_person(principal: str) -> None:
    """See that a person asks: nobody lets through what waits for somebody else to look at it.

    Raises:
        NotPossibleNow: it is an agent.
    """
    if principal.startswith(AGENT):
        raise NotPossibleNow(f"only a person can answer, and this is {principal}", remedy="Ask the person whose run it is.")


def _answer(tx: Tx, body: Answer, principal: str) -> None:
    question = tx.questions.get(body.question_id)
    if question is None:
        raise NotFound(f"there is no question {body.question_id}")
    if question.state is not QuestionState.OPEN:
        how = f"{question.answered_by} said {question.answer.value}" if question.answer is not None else question.state.value
        raise NotPossibleNow(
            f"the question {question.question_id} is not open any more: {how}", remedy="`kapelle inbox` lists those that are."
        )
    answered = settle(question, QuestionState.ANSWERED, tx.now, answer=body.answer, by=principal, note=body.reason)
    tx.questions.put(answered)
    tx.log(
        QuestionAnswered(
            run_id=question.run_id,
            task_id=question.task_id,
            question_id=question.question_id,
            answer=body.answer.value,
            principal=principal,
            reason=body.reason,
        )
    )
    no_longer_asks(tx, answered)


def _task(tx: Tx, run_id: RunId, ids: dict[str, TaskId], spec: TaskSpec, path: timedelta, before: dict[str, Task]) -> Task:
    again = before.get(spec.name)
    unmet = sum(1 for need in spec.needs if need in ids or (need in before and before[need].state not in TERMINAL))
    approved = again is not None and again.approved
    waits = Wait.NEEDS if unmet else (Wait.APPROVAL if spec.approval and not approved else None)
    return Task(
        task_id=ids[spec.name],
        run_id=run_id,
        spec=spec,
        rank=rank(tx.now, spec.priority, path),
        path=path.total_seconds(),
        unmet=unmet,
        waits_for=waits,
        approved=approved,
        submitted_at=tx.now,
        retry_of=again.task_id if again is not None else None,
    )


def _set_aside(tx: Tx, run: Run) -> None:
    """Give up the delivery of *run*: what was merged goes to a line of its own, which nobody delivers.

    Where other runs have merged onto the same line, their work and this one's cannot be told apart any more: it stays.
    """
    spec = run.spec
    if spec.repository is None or spec.target is None or run.line:
        return
    integration = tx.changes.integration(spec.repository, spec.target)
    place = (spec.repository, spec.target, "")
    others = [o for o in tx.runs.open() if o.run_id != run.run_id and (o.spec.repository, o.spec.target, o.line) == place]
    if integration is None or others or undelivered(integration) is None:
        return
    tx.changes.put_integration(replace(integration, line=run.run_id, held_up=""))
    tx.changes.put_integration(replace(integration, tip=integration.delivered, held_up=""))


def _try_delivery_again(tx: Tx, run: Run) -> None:
    """Forget why the run's target could not be moved: a person has seen to it."""
    spec = run.spec
    if spec.repository is None or spec.target is None:
        return
    integration = tx.changes.integration(spec.repository, spec.target, run.line)
    if integration is not None and integration.held_up:
        tx.changes.put_integration(replace(integration, held_up=""))


def _open_run(tx: Tx, run_id: RunId) -> Run:
    run = tx.runs.get(run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    if run.state in RUN_TERMINAL:
        raise NotPossibleNow(f"run {run.spec.name} ({run_id}) has ended already: it {how_it_ended(run.state)}")
    return run


def _waiting_for_approval(tx: Tx, task_id: TaskId) -> tuple[Task, Change | None]:
    """Return a task that waits for a person, and the change for whose sake it does, if that is why."""
    task = tx.tasks.get(task_id)
    if task is None:
        raise NotFound(f"there is no task {task_id}")
    if task.state is TaskState.MERGING:
        for change in tx.changes.of_task(task_id):
            if change.state is ChangeState.QUEUED and change.waits_for_a_person:
                return task, change
    if task.state is not TaskState.PENDING or not task.spec.approval or task.approved:
        raise NotPossibleNow(
            f"task {task.name} does not wait for an approval: it is {task.state}", remedy="`kapelle inbox` lists what does."
        )
    return task, None


def _dependents_first(tx: Tx, tasks: Sequence[Task]) -> list[Task]:
    needs = {task.task_id: [need.task_id for need in tx.tasks.needs(task.task_id)] for task in tasks}
    depth: dict[TaskId, int] = {}
    # Tasks come in the order of the file, which need not be one in which needs come first: go round until nothing changes.
    changed = True
    while changed:
        changed = False
        for task_id, its_needs in needs.items():
            now = 1 + max((depth.get(need, 0) for need in its_needs if need in needs), default=0)
            if depth.get(task_id) != now:
                depth[task_id] = now
                changed = True
    return sorted(tasks, key=lambda task: -depth[task.task_id])
