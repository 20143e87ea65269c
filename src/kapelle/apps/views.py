"""What people and programs are told about runs and tasks: read from the store, the same for every door."""

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo

from pydantic_core import to_jsonable_python

from kapelle.apps.delivering import HeldUp, held_up, integration_of
from kapelle.apps.reviewing import Review, review_json, review_of_task
from kapelle.core.account import Account, AccountState, account_of, remedy
from kapelle.core.attempt import Attempt, Outcome
from kapelle.core.budget import Spend
from kapelle.core.frozen import frozen
from kapelle.core.gate import CheckState, Receipt
from kapelle.core.hours import hours_told, opening
from kapelle.core.ids import RunId
from kapelle.core.merge import Change, ChangeState
from kapelle.core.run import RUN_TERMINAL, Run, RunSpec
from kapelle.core.store import View
from kapelle.core.task import TERMINAL, Task, TaskState, Wait

if TYPE_CHECKING:
    from kapelle.core.events import Entry


Counts = tuple[tuple[TaskState, int], ...]
"""States, and how many tasks are in each."""
DONE = (TaskState.COMPLETED, TaskState.SKIPPED)
NOT_DONE = (TaskState.FAILED, TaskState.CANCELLED, TaskState.REJECTED)
"""How a task ends that is done, or that needed no doing; and how one ends that is not."""


@frozen
class TaskReport:
    """One task, as shown."""

    task: Task
    attempts: tuple[Attempt, ...]
    spend: Spend
    receipt: Receipt | None
    change: Change | None = None
    """The last one that it offered."""
    review: Review | None = None
    """Its change of protected files that waits for a person."""
    sandbox: str = ""
    """What its agent works in."""

    @property
    def agent(self) -> str:
        """The agent config that it was given to last, or those that it may be given to."""
        return self.attempts[-1].config if self.attempts else " or ".join(self.task.spec.choices)

    @property
    def passed(self) -> bool | None:
        """Whether the gate passed on the tree that it looked at last; None while there is nothing to say of that."""
        if self.task.state is TaskState.COMPLETED:
            # A task that changed nothing has no change with a receipt; completed, it passed all the same.
            return True
        if self.task.failure is not None and self.task.failure.kind == Outcome.GATE_FAILED:
            return False
        if self.change is None:
            return None
        if self.change.red:
            return False
        return True if self.change.state in {ChangeState.QUEUED, ChangeState.MERGED} else None

    @property
    def gate(self) -> str:
        """The gate's verdict in a word: its name and how often work went back to the agent."""
        returns = sum(attempt.gate_rounds for attempt in self.attempts)
        name = self.receipt.gate if self.receipt is not None else (self.task.spec.gate or "")
        if not name or name == "none":
            return ""
        mark = {True: " ✓", False: " ✗", None: ""}[self.passed]
        return f"{name}{mark}" + (f" ↺{returns}" if returns else "")

    @property
    def merge_returns(self) -> int:
        """How often the merge queue sent the change back."""
        return sum(attempt.merge_returns for attempt in self.attempts)

    def elapsed(self, now: datetime) -> timedelta | None:
        """Return the time from its first start to its end, or to *now*."""
        if self.task.started_at is None:
            return None
        return (self.task.ended_at or now) - self.task.started_at


@frozen
class RunReport:
    """One run with its tasks, as shown."""

    run: Run
    tasks: tuple[TaskReport, ...]
    spend: Spend
    delivered: str
    """The target's commit, as far as is known."""
    held: HeldUp | None
    """Why its target could not be moved, when it could not."""
    account: Account | None = None
    """The account that its agents use, while that is not open."""

    def waits_for(self, task: Task) -> str:
        """Say in a few words what *task* waits for; empty when it does not wait."""
        if task.waits_for is None:
            return ""
        if task.waits_for is Wait.NEEDS:
            open_needs = [entry.task.name for entry in self.tasks if entry.task.state not in TERMINAL]
            return "waits for " + ", ".join(name for name in open_needs if name in task.spec.needs)
        detail = task.detail.splitlines()[0] if task.detail else ""
        return f"waits for {task.waits_for.value}" + (f": {detail}" if detail else "")

    @property
    def counts(self) -> Counts:
        """How many tasks are in each state."""
        states = [entry.task.state for entry in self.tasks]
        return tuple((state, states.count(state)) for state in TaskState if state in states)

    @property
    def ended(self) -> int:
        """How many tasks have ended, whichever way."""
        return sum(count for state, count in self.counts if state in TERMINAL)


def sandboxes_of(spec: RunSpec) -> tuple[str, ...]:
    """Return what the agents of a run, and its commands and checks, work in: each sandbox once, agents first."""
    names = (*(config.sandbox for config in spec.configs), spec.workspace.sandbox)
    return tuple(dict.fromkeys(name for name in names if name))


def sandbox_text(spec: RunSpec) -> str:
    """Say what a run works in."""
    names = sandboxes_of(spec)
    return f"{'sandbox' if len(names) == 1 else 'sandboxes'}: {', '.join(names)}"


def closed(run: Run, now: datetime) -> str:
    """Return why nobody works for *run* at this hour, in words; empty when they may."""
    hours = run.spec.hours if run.ended_at is None else None
    found = opening(hours, ZoneInfo(hours.zone), now) if hours is not None else None
    return "" if found is None or found.open else hours_told(found)


def done_text(counts: Counts, noun: str = "") -> str:
    """Say how many tasks are done, of how many, and how many ended without being done."""
    by_state = dict(counts)
    done = sum(by_state.get(state, 0) for state in DONE)
    others = [f"{by_state[state]} {state.value}" for state in NOT_DONE if by_state.get(state)]
    return ", ".join([f"{done}/{sum(by_state.values())}{noun}", *others])


def run_report(view: View, run_id: RunId) -> RunReport | None:
    """Return what is to be told about a run, or None when there is none."""
    run = view.runs.get(run_id)
    if run is None:
        return None
    spends = view.ledger.by_task(run_id)
    sandboxes = {config.name: config.sandbox for config in run.spec.configs}
    tasks = tuple(
        TaskReport(
            task=task,
            attempts=tuple(attempts),
            spend=spends.get(task.task_id, Spend()),
            receipt=_receipt(view, task),
            change=next(reversed(view.changes.of_task(task.task_id)), None),
            review=review_of_task(view, task.task_id, task.name) if task.waits_for is Wait.APPROVAL else None,
            sandbox=sandboxes.get(attempts[-1].config if attempts else task.spec.agent, ""),
        )
        for task in view.tasks.of_run(run_id)
        for attempts in [view.attempts.of_task(task.task_id)]
    )
    integration = integration_of(view, run)
    return RunReport(
        run=run,
        tasks=tasks,
        spend=sum(spends.values(), Spend()),
        delivered=integration.delivered if integration is not None else "",
        held=next(iter(held_up(view, [run])), None),
        account=_account(view, run),
    )


def _account(view: View, run: Run) -> Account | None:
    found = view.accounts.get(account_of(run.spec.upstream).account_id)
    return found if found is not None and found.state is not AccountState.OPEN and run.state not in RUN_TERMINAL else None


def account_json(account: Account) -> dict[str, Any]:
    """Return an account as JSON."""
    return {
        "name": account.name,
        "state": account.state.value,
        "trouble": account.trouble.value if account.trouble else None,
        "reason": account.reason or None,
        "since": account.began_at.isoformat() if account.began_at else None,
        "resets_at": account.resets_at.isoformat() if account.resets_at else None,
        "next_at": account.next_at.isoformat() if account.next_at else None,
        "what_to_do": remedy(account) if account.state is AccountState.REFUSED else None,
    }


def _receipt(view: View, task: Task) -> Receipt | None:
    for change in reversed(view.changes.of_task(task.task_id)):
        key = change.proof or change.receipt
        if key is not None:
            return view.changes.receipt(key)
    return None


def task_json(entry: TaskReport, now: datetime) -> dict[str, Any]:
    """Return a task as JSON: stable names, times in ISO 8601, durations in seconds."""
    task = entry.task
    elapsed = entry.elapsed(now)
    return {
        "id": task.task_id,
        "name": task.name,
        "state": task.state.value,
        "waits_for": task.waits_for.value if task.waits_for else None,
        "detail": task.detail or None,
        "review": review_json(entry.review) if entry.review is not None else None,
        "agent": entry.agent,
        "sandbox": entry.sandbox or None,
        "priority": task.spec.priority.value,
        "attempts": len(entry.attempts),
        "gate_rounds": sum(attempt.gate_rounds for attempt in entry.attempts),
        "merge_returns": entry.merge_returns,
        "gate": _gate_json(entry),
        "tokens": spend_json(entry.spend)["tokens"],
        "cost_usd": round(entry.spend.cost_usd, 6),
        "elapsed_s": round(elapsed.total_seconds(), 3) if elapsed is not None else None,
        "commit": task.commit,
        "summary": task.summary or None,
        "result": None if task.result is None else json.loads(task.result),
        "failure": None if task.failure is None else {"kind": task.failure.kind, "message": task.failure.message},
        "submitted_at": task.submitted_at.isoformat(),
        "ended_at": task.ended_at.isoformat() if task.ended_at else None,
    }


def _gate_json(entry: TaskReport) -> dict[str, Any] | None:
    receipt = entry.receipt
    if receipt is None:
        # What did not pass has no receipt; and a task without a gate, or before its gate, has nothing to tell.
        return {"name": entry.task.spec.gate, "passed": False, "receipt": None, "checks": {}} if entry.passed is False else None
    return {
        "name": receipt.gate,
        "passed": entry.passed,
        "receipt": receipt.key,
        "checks": {check.name: check.state.value for check in receipt.checks if check.state is not CheckState.NOT_RUN},
    }


def spend_json(spend: Spend) -> dict[str, Any]:
    """Return a spend as JSON."""
    usage = spend.usage
    return {
        "tokens": {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cache_read": usage.cache_read_tokens,
            "cache_write": usage.cache_write_tokens,
        },
        "cost_usd": round(spend.cost_usd, 6),
        "model_calls": spend.calls,
    }


def run_json(report: RunReport, now: datetime) -> dict[str, Any]:
    """Return a run as JSON."""
    run = report.run
    return {
        "id": run.run_id,
        "name": run.spec.name,
        "state": run.state.value,
        "paused": run.paused,
        "repository": run.spec.repository,
        "target": run.spec.target,
        "sandboxes": list(sandboxes_of(run.spec)),
        "delivered": report.delivered or None,
        "held_up": report.held.why if report.held is not None else None,
        "what_to_do": (report.held.remedy or None) if report.held is not None else None,
        "account": account_json(report.account) if report.account is not None else None,
        "submitted_at": run.submitted_at.isoformat(),
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
        **spend_json(report.spend),
        "tasks": [task_json(entry, now) for entry in report.tasks],
    }


def entry_json(entry: "Entry") -> dict[str, Any]:
    """Return an event of the log as JSON: its kind, place and time, and its own fields."""
    fields = cast("dict[str, Any]", to_jsonable_python(entry.event))
    head = {"seq": entry.seq, "at": entry.at.isoformat(), "term": entry.term, "kind": entry.event.kind}
    return {**head, **fields}
