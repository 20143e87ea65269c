"""Accounts in the engine: what was heard of one is written down once, and holds for every run that uses it.

The gateway hears first, since every call passes it; what an agent's stream says counts only where the gateway could not hear.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime

from kapelle.core import account as rules
from kapelle.core.account import Account, AccountState
from kapelle.core.account_events import AccountLimited, AccountRefused, AccountRestored
from kapelle.core.calls import ModelCall, Refusal
from kapelle.core.conversation import Trouble
from kapelle.core.frozen import frozen, replace
from kapelle.core.gateway import Upstream
from kapelle.core.ids import AccountId, AttemptId, RunId, TaskId
from kapelle.core.run import Run
from kapelle.core.store import Tx, View
from kapelle.core.task import TERMINAL, Wait
from kapelle.engine.ending import wait
from kapelle.engine.world import World


@frozen
class Heard:
    """What the API said, and of whose call."""

    trouble: Trouble
    message: str
    resets_at: datetime | None
    run_id: RunId
    task_id: TaskId | None = None


def account(view: View, run: Run) -> Account:
    """Return the account that *run* uses, as it is now."""
    fresh = rules.account_of(run.spec.upstream)
    return view.accounts.get(fresh.account_id) or fresh


def waits(found: Account) -> tuple[Wait, str, datetime | None]:
    """Return what the tasks of an account that is not open wait for, why in words, and until when."""
    kind = Wait.CREDENTIALS if found.state is AccountState.REFUSED else Wait.LIMIT
    return kind, rules.told(found), found.next_at if found.state is AccountState.LIMITED else None


def refusal_of(found: Account) -> Refusal:
    """Return what an agent of an account that is shut is told."""
    return Refusal(trouble=found.trouble or Trouble.USAGE_LIMIT, message=rules.told(found))


def mark(world: World, upstream: Upstream) -> str:
    """Return a mark of the credentials for *upstream*, from which they cannot be found out; empty where there are none."""
    reference = rules.reference_of(upstream)
    secret = world.credentials.resolve(reference) if reference is not None else None
    return "" if secret is None else hashlib.sha256(f"{world.store.store_id}:{secret}".encode()).hexdigest()[:16]


class Accounts:
    """Writes down what happens to accounts, inside the transactions of the stages."""

    def __init__(self, world: World) -> None:
        self._world = world

    # --- Hearing ---

    def hear_calls(self, tx: Tx, calls: list[ModelCall]) -> None:
        """Take in how model calls ended: those that show that their account is shut, and those that show that it goes again."""
        trying: dict[AccountId, Account] | None = None
        for call in calls:
            if call.trouble is not None and call.of_account:
                self.hear(
                    tx,
                    Heard(
                        trouble=call.trouble,
                        message=call.message,
                        resets_at=call.resets_at,
                        run_id=call.run_id,
                        task_id=call.task_id,
                    ),
                )
                trying = None
            elif call.trouble is None and not call.error:
                if trying is None:
                    trying = {row.account_id: row for row in tx.accounts.not_open() if row.state is AccountState.TRYING}
                run = tx.runs.get(call.run_id) if trying else None
                if run is not None:
                    self.went_through(tx, run)

    def hear(self, tx: Tx, heard: Heard) -> None:
        """Take in that an account was refused; an event and the waits of its tasks only when that is something new."""
        run = tx.runs.get(heard.run_id)
        if run is None:
            return
        before = account(tx, run)
        after = rules.shut(
            before,
            heard.trouble,
            heard.message,
            now=tx.now,
            resets_at=heard.resets_at,
            key=self._mark(run),
            chance=self._world.chance.share(),
        )
        if after == before:
            return
        tx.accounts.put(after)
        run_id, task_id, trouble = heard.run_id, heard.task_id, heard.trouble.value
        if after.state is AccountState.REFUSED:
            remedy = rules.remedy(after)
            event = AccountRefused(
                run_id=run_id, task_id=task_id, account=after.name, trouble=trouble, reason=after.reason, remedy=remedy
            )
            tx.log(event)
            return
        tx.log(
            AccountLimited(
                run_id=run_id,
                task_id=task_id,
                account=after.name,
                trouble=trouble,
                reason=after.reason,
                resets_at=after.resets_at,
                next_at=after.next_at,
            )
        )

    def went_through(self, tx: Tx, run: Run) -> None:
        """Take in that a call of the run's account went well."""
        before = account(tx, run)
        self._change(tx, before, rules.got_through(before, tx.now), run_id=run.run_id)

    def retry_now(self, tx: Tx, run: Run) -> None:
        """Let one agent of the run's account try, since a person says so."""
        before = account(tx, run)
        self._change(tx, before, rules.retry_now(before, tx.now), run_id=run.run_id)

    def shut(self, tx: Tx, run: Run) -> Account | None:
        """Return the run's account if no call of it is let through, else None."""
        if not any(found.shut for found in tx.accounts.not_open()):
            return None
        found = account(tx, run)
        return found if found.shut else None

    # --- Time ---

    def settle(self, tx: Tx) -> Mapping[AccountId, Account]:
        """Let time pass for every account that is not open, and return those that are not open then."""
        found: dict[AccountId, Account] = {}
        for before in tx.accounts.not_open():
            after = rules.passed(before, tx.now)
            if after.state is AccountState.REFUSED and self._renewed(tx, after):
                after = rules.retry_now(after, tx.now)
            if after.tried_by is not None and not any(agent.attempt_id == after.tried_by for agent in tx.agents.live()):
                # Whoever tried is gone without having got through or been refused: another one may.
                after = replace(after, tried_by=None)
            self._change(tx, before, after)
            if after.state is not AccountState.OPEN:
                found[after.account_id] = after
        return found

    def begun(self, tx: Tx, run: Run, attempt_id: AttemptId) -> None:
        """Write down that an agent of the run's account was given out."""
        before = account(tx, run)
        if before.state is not AccountState.OPEN:
            tx.accounts.put(rules.begun(before, attempt_id, tx.now))

    def _change(self, tx: Tx, before: Account, after: Account, *, run_id: RunId | None = None) -> None:
        if after == before:
            return
        tx.accounts.put(after)
        if after.state is before.state:
            return
        if after.state is AccountState.RESTARTING:
            tx.log(AccountRestored(run_id=run_id or self._a_run(tx, after), account=after.name))
        if before.shut:
            self._wake(tx, after)

    def _wake(self, tx: Tx, found: Account) -> None:
        """Let the tasks of an account that is not shut any more be looked at at once."""
        for run in tx.runs.open():
            if rules.account_of(run.spec.upstream).account_id != found.account_id:
                continue
            for task in tx.tasks.of_run(run.run_id):
                if task.state not in TERMINAL and task.waits_for in {Wait.LIMIT, Wait.CREDENTIALS} and task.due_at is not None:
                    wait(tx, task, task.waits_for, task.detail)

    @staticmethod
    def _a_run(tx: Tx, found: Account) -> RunId | None:
        runs = [run for run in tx.runs.open() if rules.account_of(run.spec.upstream).account_id == found.account_id]
        return runs[0].run_id if runs else None

    # --- Credentials ---

    def _mark(self, run: Run) -> str:
        return mark(self._world, run.spec.upstream)

    def _renewed(self, tx: Tx, found: Account) -> bool:
        """Say whether the credentials are others than those that were refused."""
        for run in tx.runs.open():
            if rules.account_of(run.spec.upstream).account_id == found.account_id:
                return self._mark(run) not in {"", found.key}
        return False
