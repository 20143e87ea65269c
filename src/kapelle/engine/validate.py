"""Validate: commit what an agent left in its workspace, look whether it is work at all, and run the gate on it."""

from asyncio import to_thread
from datetime import datetime

from kapelle.core.attempt import Attempt, Outcome, PromptRecord
from kapelle.core.errors import KapelleError
from kapelle.core.event import Event
from kapelle.core.events import AgentToolFailed, ChangeHeld, ChangeQueued, GateFailed, GatePassed
from kapelle.core.frozen import frozen, replace
from kapelle.core.gate import CheckResult, CheckState, Gate, Receipt, Verdict
from kapelle.core.git import Commit, Signature
from kapelle.core.ids import ChangeId, PromptId
from kapelle.core.merge import Change, protected
from kapelle.core.plain_text import shown_files
from kapelle.core.ports import Driver
from kapelle.core.run import Run
from kapelle.core.store import Tx, View, WorkspaceRow
from kapelle.core.task import Task, TaskState, Wait, advance, rank
from kapelle.core.wording import check_failed, commit_message, listed, no_work, result_wrong, secret_in_work
from kapelle.engine.acts import Acts, Finding
from kapelle.engine.ending import close, finish, give_up_attempt, moved_event, run_of, wait
from kapelle.engine.gating import Gating, key_of, log_checks, run_gate
from kapelle.engine.secrets import hide_folder, hiding, log_leaks, text_of
from kapelle.engine.steering import waiting_prompts
from kapelle.engine.stillness import Restless, leave_for_now, still
from kapelle.engine.world import World

NO_GATE = Gate(name="none", checks=())
AUTHOR_DOMAIN = "agents.kapelle.invalid"
"""Agents have no mailbox; .invalid is reserved for names that shall never resolve (RFC 2606)."""


@frozen
class _Order:
    task: Task
    attempt: Attempt
    run: Run
    driver: Driver
    workspace: WorkspaceRow


@frozen
class _Found:
    """What came of looking at an agent's work."""

    gating: Gating
    commit: Commit | None = None
    changed: tuple[str, ...] = ()
    complaint: str = ""
    """What is wrong with the work itself, before any gate; in the words for the agent."""
    reason: str = ""
    """The same in the words for people."""
    outcome: Outcome = Outcome.GATE_FAILED
    """What the attempt ends with if it may not go back to the agent."""


class ValidateStage:
    """Gates the work of tasks that are validating."""

    name = "validate"

    def __init__(self, world: World, acts: Acts) -> None:
        self._world = world
        self._acts = acts

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        findings = self._acts.take()
        wakes: list[datetime] = []

        def decide(tx: Tx) -> list[_Order]:
            for finding in findings:
                finding(tx)
            wakes.clear()
            return self._decide(tx, wakes)

        try:
            orders = await self._world.store.transact(decide, term=self._world.term)
        except BaseException:
            self._acts.give_back(findings)
            raise
        for order in orders:
            self._acts.start((order.task.task_id, order.attempt.attempt_id, order.task.round), self._validate(order))
        return now if findings else min(wakes, default=None)

    def _decide(self, tx: Tx, wakes: list[datetime]) -> list[_Order]:
        orders: list[_Order] = []
        for task in tx.tasks.in_state(TaskState.VALIDATING):
            attempt = tx.attempts.get(task.attempt_id) if task.attempt_id is not None else None
            if attempt is None or self._acts.running((task.task_id, attempt.attempt_id, task.round)):
                continue
            if task.due_at is not None and task.due_at > tx.now:
                wakes.append(task.due_at)
                continue
            workspace = tx.agents.workspace(attempt.workspace_id) if attempt.workspace_id is not None else None
            if workspace is None:
                message = "its workspace is gone"
                give_up_attempt(tx, task, attempt, Outcome.SETUP_FAILED, message, chance=self._world.chance.share())
                continue
            run = run_of(tx, task)
            driver = self._world.driver(run.spec.config(attempt.config).program)
            orders.append(_Order(task=task, attempt=attempt, run=run, driver=driver, workspace=workspace))
        return orders

    # --- The act ---

    async def _validate(self, order: _Order) -> Finding:
        try:
            async with still(self._world, order.attempt.attempt_id):
                if order.task.waits_for is not None:
                    self._acts.report(lambda tx: self._waits_no_more(tx, order))
                found = await self._look(order)
        except Restless as restless:
            reason = restless.reason

            def left(tx: Tx) -> None:
                task, _ = self._current(tx, order)
                if task is not None:
                    leave_for_now(tx, task, reason)

            return left
        except KapelleError as error:
            # It may name a file, and whoever works there chose that name.
            config, attempt_id = order.run.spec.config(order.attempt.config), order.attempt.attempt_id
            message = await text_of(self._world, config, attempt_id, error.in_full)

            def failed(tx: Tx) -> None:
                task, attempt = self._current(tx, order)
                if task is not None and attempt is not None:
                    chance = self._world.chance.share()
                    give_up_attempt(tx, task, attempt, Outcome.SETUP_FAILED, message, chance=chance)

            return failed

        def write(tx: Tx) -> None:
            task, attempt = self._current(tx, order)
            if task is None or attempt is None:
                return
            log_leaks(tx, task, found.commit)
            if waiting_prompts(tx, attempt):
                # Whatever the checks say: it is to hear something first, and is looked at again.
                tx.attempts.put(changed := replace(attempt, round=attempt.round + 1))
                back = replace(advance(task, TaskState.RUNNING, tx.now), round=changed.round)
                tx.tasks.put(back)
                tx.log(moved_event(back, task.state, "a person has something to say"))
            elif found.complaint or not found.gating.verdict.passed:
                self._refused(tx, order, task, attempt, found)
            else:
                self._passed(tx, order, task, attempt, found)

        return write

    def _waits_no_more(self, tx: Tx, order: _Order) -> None:
        task, _ = self._current(tx, order)
        if task is not None:
            wait(tx, task, None)

    async def _look(self, order: _Order) -> _Found:
        task, workspace = order.task, order.workspace
        gate = order.run.spec.gate(task.spec.gate) or NO_GATE
        commit: Commit | None = None
        changed: tuple[str, ...] = ()
        if workspace.repository is not None and workspace.base is not None:
            found = await hiding(self._world, order.run.spec.config(order.attempt.config), order.attempt.attempt_id)
            commit = await self._world.workspaces.commit(workspace.path, workspace.repository, self._signature(order), found)
            changed = tuple(await self._world.repositories.changed(workspace.repository, workspace.base, commit.commit))
        tree = commit.tree if commit is not None else f"workspace:{workspace.workspace_id}:{order.task.round}"
        key = key_of(self._world, order.run, gate, tree, task)
        none = Gating(gate=gate, tree=tree, key=key, verdict=Verdict(passed=False, checks=()))
        complaint, reason, outcome = (
            _leaked(commit) if commit is not None and commit.refused else await self._complaint(order, changed)
        )
        if complaint:
            return _Found(gating=none, commit=commit, changed=changed, complaint=complaint, reason=reason, outcome=outcome)
        receipt = await self._world.store.read(lambda view: view.changes.receipt(key))
        if receipt is not None and commit is not None:
            verdict = Verdict(passed=True, checks=receipt.checks)
            return _Found(gating=replace(none, verdict=verdict, reused=True), commit=commit, changed=changed)
        label = f"{order.attempt.number}.{task.round}"
        hide = await hide_folder(self._world, order.run.spec.config(order.attempt.config), order.attempt.attempt_id)
        verdict = await run_gate(self._world, order.run, task, gate, workspace, label=label, hide=hide)
        if commit is not None and workspace.repository is not None:
            # What checks leave behind is no work of the agent: it must not be in the commit of a later round.
            await self._world.workspaces.put(workspace.path, workspace.repository, commit.commit)
        return _Found(gating=replace(none, verdict=verdict), commit=commit, changed=changed)

    async def _complaint(self, order: _Order, changed: tuple[str, ...]) -> tuple[str, str, Outcome]:
        """Return what is wrong with the work before any gate is asked: for the agent, for people, and the outcome it means."""
        task, workspace = order.task, order.workspace
        if task.spec.reads_only and changed:
            names = shown_files(changed[:10])
            text = f"You were to read only, and these files are changed: {names}. Put them back as they were."
            return text, f"it was to read only, and changed {names}", Outcome.AGENT_FAILED
        claims = order.driver.capabilities.reports_tools and not changed and not task.spec.reads_only
        if claims and not await self._did_something(order):
            tried = order.attempt.tool_calls > 0
            how = "though every tool that it called was denied" if tried else "without using a tool"
            return no_work(tried=tried), f"it claimed success {how} and without changing a file", Outcome.NO_WORK
        if task.spec.result_schema is not None:
            problem = await to_thread(self._world.evaluator.result_problem, task.spec.result_schema, task.result)
            if problem:
                return result_wrong(problem), f"its structured result does not fit: {problem}", Outcome.WRONG_RESULT
        if workspace.repository is not None and workspace.base is not None:
            left = await self._world.workspaces.leftover_markers(workspace.path, workspace.repository, workspace.base)
            if left:
                names = shown_files(left)
                text = f"These files still hold conflict markers: {names}. Resolve them."
                return text, f"conflict markers are left in {names}", Outcome.CONFLICT
        return "", "", Outcome.GATE_FAILED

    async def _did_something(self, order: _Order) -> bool:
        """Say whether a tool may have done what the agent asked of it: one that was denied did nothing."""
        if order.attempt.tool_calls == 0:
            return False

        def denied(view: View) -> int:
            found, after = 0, 0
            while entries := view.events(after, run_id=order.run.run_id):
                after = entries[-1].seq
                its = (entry for entry in entries if entry.at >= order.attempt.started_at)
                found += sum(_denied(entry.event, order.task) for entry in its)
            return found

        return await self._world.store.read(denied) < order.attempt.tool_calls

    def _signature(self, order: _Order) -> Signature:
        message = commit_message(
            order.task.name,
            order.task.summary,
            run_id=order.run.run_id,
            task_id=order.task.task_id,
            attempt=order.attempt.number,
            agent=order.attempt.config,
        )
        name = order.attempt.config
        return Signature(author=f"{name} (Kapelle)", email=f"{name}@{AUTHOR_DOMAIN}", message=message)

    # --- Writing it down ---

    @staticmethod
    def _current(tx: Tx, order: _Order) -> tuple[Task | None, Attempt | None]:
        """Return task and attempt as they are now, if they are still what was looked at."""
        task, attempt = tx.tasks.get(order.task.task_id), tx.attempts.get(order.attempt.attempt_id)
        if task is None or attempt is None or attempt.ended_at is not None:
            return None, None
        same = task.attempt_id == attempt.attempt_id and task.round == order.task.round
        return (task, attempt) if same and task.state is TaskState.VALIDATING else (None, None)

    def _passed(self, tx: Tx, order: _Order, task: Task, attempt: Attempt, found: _Found) -> None:
        gating = found.gating
        receipt = Receipt(
            key=gating.key,
            tree=gating.tree,
            gate=gating.gate.name,
            commit=found.commit.commit if found.commit else "",
            checks=gating.verdict.checks,
            tool_calls=attempt.tool_calls,
            declared=task.spec.writes,
            changed=found.changed,
            made_at=tx.now,
        )
        tx.changes.put_receipt(receipt)
        if not gating.reused:
            log_checks(tx, task.run_id, task.task_id, gating, "workspace")
        tx.log(
            GatePassed(
                run_id=task.run_id,
                task_id=task.task_id,
                gate=gating.gate.name,
                tree=gating.tree,
                receipt=gating.key,
                reused=gating.reused,
            )
        )
        if found.commit is None or not found.changed or order.run.spec.target is None:
            close(tx, attempt, Outcome.SUCCEEDED)
            finish(tx, task, TaskState.COMPLETED)
            return
        self._queue(tx, order, task, attempt, found.commit, found)

    def _queue(self, tx: Tx, order: _Order, task: Task, attempt: Attempt, commit: Commit, found: _Found) -> None:
        held = protected(found.changed, order.run.spec.merge.protect)
        change = Change(
            change_id=ChangeId(self._world.new_id("c")),
            run_id=task.run_id,
            task_id=task.task_id,
            attempt_id=attempt.attempt_id,
            repository=order.workspace.repository or "",
            target=order.run.spec.target or "",
            base=order.workspace.base or "",
            head=commit.commit,
            tree=commit.tree,
            rank=rank(tx.now, task.spec.priority),
            ready_at=tx.now,
            receipt=found.gating.key,
            protected=held,
        )
        tx.changes.put(change)
        moved = advance(task, TaskState.MERGING, tx.now)
        tx.tasks.put(moved)
        tx.log(
            moved_event(moved, task.state),
            ChangeQueued(
                run_id=task.run_id,
                task_id=task.task_id,
                change_id=change.change_id,
                target=change.target,
                head=change.head,
            ),
        )
        if held:
            tx.log(ChangeHeld(run_id=task.run_id, task_id=task.task_id, change_id=change.change_id, files=held))
            wait(tx, moved, Wait.APPROVAL, f"it changes {listed(held)}, which a person must see first")

    def _refused(self, tx: Tx, order: _Order, task: Task, attempt: Attempt, found: _Found) -> None:
        gating = found.gating
        failing = gating.verdict.failing
        if failing is not None:
            log_checks(tx, task.run_id, task.task_id, gating, "workspace")
            tx.log(
                GateFailed(
                    run_id=task.run_id,
                    task_id=task.task_id,
                    gate=gating.gate.name,
                    tree=gating.tree,
                    check=failing.name,
                )
            )
        if found.complaint:
            text, used, bound = found.complaint, attempt.result_rounds, self._world.settings.result_rounds
            changed = replace(attempt, result_rounds=used + 1, round=attempt.round + 1)
        else:
            text = check_failed(gating.gate, failing or _no_check(gating.gate))
            used, bound = attempt.gate_rounds, gating.gate.rounds
            changed = replace(attempt, gate_rounds=used + 1, round=attempt.round + 1)
        if not order.driver.capabilities.conversation or used >= bound:
            chance = self._world.chance.share()
            give_up_attempt(tx, task, attempt, found.outcome, _reason(found, failing), chance=chance)
            return
        tx.attempts.put(changed)
        prompt_id = PromptId(self._world.chance.uuid())
        tx.attempts.put_prompt(PromptRecord(prompt_id=prompt_id, attempt_id=attempt.attempt_id, round=changed.round, text=text))
        back = replace(advance(task, TaskState.RUNNING, tx.now), round=changed.round)
        tx.tasks.put(back)
        tx.log(moved_event(back, task.state, _reason(found, failing)))


def _leaked(commit: Commit) -> tuple[str, str, Outcome]:
    """Return what is wrong with work that holds values of secrets: for the agent, for people, and the outcome it means."""
    places = [(leak.secret, leak.file) for leak in commit.leaks if leak.secret]
    names = ", ".join(dict.fromkeys(secret for secret, _ in places))
    files = shown_files(tuple(dict.fromkeys(file for _, file in places))[:10])
    return secret_in_work(places), f"it holds the value of {names} in {files}", Outcome.AGENT_FAILED


def _no_check(gate: Gate) -> CheckResult:
    return CheckResult(name=gate.name, run="", state=CheckState.FAILED)


def _reason(found: _Found, failing: CheckResult | None) -> str:
    if failing is None:
        return found.reason or f"the gate {found.gating.gate.name} did not pass"
    return f"the check {found.gating.gate.name}/{failing.name} {failing.how}"


def _denied(event: Event, task: Task) -> bool:
    """Say whether a tool of *task* was denied: by Kapelle, which says so by its name, or by the program's own permissions."""
    if not isinstance(event, AgentToolFailed) or event.task_id != task.task_id:
        return False
    return "Kapelle" in event.about or "requested permissions" in event.about or "nobody answered in time" in event.about
