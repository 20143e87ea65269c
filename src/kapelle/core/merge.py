"""The merge queue: changes, their order, and how they reach the target.

Per target there is one integration ref. A change is merged onto it, the gate runs on the merged tree, and only then does
the ref move; delivery moves the target to where the ref is. A target only ever moves to a commit whose gate passed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from kapelle.core.ids import AttemptId, ChangeId, RunId, TaskId


class ChangeState(StrEnum):
    """Where a change stands."""

    QUEUED = "queued"
    MERGED = "merged"
    RETURNED = "returned"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class DeliveryMode(StrEnum):
    """When what is merged goes to the target."""

    EACH = "each"
    END = "end"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The commits that an attempt offers to a target."""

    change_id: ChangeId
    run_id: RunId
    task_id: TaskId
    attempt_id: AttemptId
    repository: str
    target: str
    """A branch name, without ``refs/heads/``."""
    base: str
    head: str
    tree: str
    rank: float
    """Its place in the queue, from priority and readiness; the smallest goes first."""
    state: ChangeState = ChangeState.QUEUED
    ready_at: datetime
    ended_at: datetime | None = None
    merged_as: str | None = None
    """The merge commit on the integration ref."""
    receipt: str | None = None
    """The key of the receipt that proves it."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Integration:
    """How far one target's queue has come.

    What goes to the target at once is one line; a run that delivers at its end, or never, has a line of its own, so that
    nobody else delivers its work.
    """

    repository: str
    target: str
    line: str = ""
    """Empty for what goes to the target at once, else the id of the run whose line it is."""
    tip: str
    """The last commit whose gate passed; the integration ref points at it."""
    delivered: str
    """The commit the target was last seen at."""
    held_up: str = ""
    """Why the target could not be moved to the tip, when it could not."""


def undelivered(integration: Integration | None) -> str | None:
    """Return the commit that holds merged work which the target does not have yet, or None when it has all of it.

    Once everything is delivered the target alone says what holds: a person may have taken work off it again.
    """
    return integration.tip if integration is not None and integration.tip != integration.delivered else None


def order(changes: Iterable[Change]) -> list[Change]:
    """Return the queued *changes* in the order in which they are merged."""
    queued = [change for change in changes if change.state is ChangeState.QUEUED]
    return sorted(queued, key=lambda change: (change.rank, change.change_id))
