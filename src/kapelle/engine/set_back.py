"""What a new leader finds to be done later, when the clock was set back since that was written down.

A leader's own clock never goes back as long as it lives; the next one begins with the machine's. What was to be tried again in
a minute would then be tried again in a minute and all the hours by which the clock was set back.
"""

from datetime import timedelta

from kapelle.core.account import AccountState
from kapelle.core.events import ClockSetBack
from kapelle.core.frozen import replace
from kapelle.core.store import Tx
from kapelle.core.task import TERMINAL, Wait
from kapelle.engine.ending import wait

TOLERATED = timedelta(seconds=1)
"""How far two clocks may be apart without anybody having set one."""


def move_earlier(tx: Tx) -> None:
    """Move what waits for a time of a clock that was set back to the same time of the clock that goes now.

    When a usage limit ends is said by the model API, whose clock nobody here has set: that stays.
    """
    newest = tx.events(tx.last_seq() - 1, limit=1)
    by = newest[0].at - tx.now if newest else timedelta()
    if by <= TOLERATED:
        return
    for account in tx.accounts.not_open():
        guessed = account.next_at is not None and account.next_at != account.resets_at
        if account.state is not AccountState.REFUSED and account.next_at is not None and guessed:
            tx.accounts.put(replace(account, next_at=account.next_at - by))
    for run in tx.runs.open():
        for task in tx.tasks.of_run(run.run_id):
            if task.state in TERMINAL or task.due_at is None:
                continue
            if task.waits_for is Wait.RETRY:
                tx.tasks.put(replace(task, due_at=task.due_at - by))
            else:
                # It waits for an account, and is told again until when.
                wait(tx, task, task.waits_for, task.detail)
    for change in tx.changes.queued():
        tx.changes.put(replace(change, ready_at=change.ready_at - by))
    tx.log(ClockSetBack(seconds=by.total_seconds()))
