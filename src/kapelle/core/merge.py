"""The merge queue: changes, their order, and how they reach the target.

Per target there is one integration ref. Changes are merged onto it, the gate runs on the merged tree, and only then does
the ref move; delivery moves the target to where the ref is. A target only ever moves to a commit whose gate passed.

Changes that wait together are gated together, as a batch, which lands as one commit. When its gate fails, bisection finds the
one that is to blame: halves are tried until one change is left, which is tried once more before it is named. One bad change
among n thus costs about log n gates, and a check that fails by chance is caught::

    n queued --gate passes--> all land
       |
     fails: all n are suspects
       |
    first half --passes--> it lands; the other half are the suspects: with what landed they are the very tree that failed
       |
     fails: the first half are the suspects, the others wait their turn again
       |
    one suspect --tried once more--> passes: it lands, the check is flaky
                                     fails: it goes back to its agent
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AttemptId, BatchId, ChangeId, RunId, TaskId


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


PROTECTED: tuple[str, ...] = (
    ".kapelle/**",
    ".github/workflows/**",
    ".github/actions/**",
    ".gitlab-ci.yml",
    ".gitlab/ci/**",
    ".circleci/**",
    ".buildkite/**",
    ".forgejo/**",
    ".gitea/**",
    ".woodpecker/**",
    ".woodpecker.yml",
    ".drone.yml",
    ".travis.yml",
    ".cirrus.yml",
    "Jenkinsfile",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
    "appveyor.yml",
    ".githooks/**",
    ".husky/**",
    ".pre-commit-config.yaml",
    "lefthook.yml",
    ".gitmodules",
    ".claude/settings*.json",
    ".claude/hooks/**",
    ".mcp.json",
    "CODEOWNERS",
)
"""Files that run with rights that an agent does not have, on a later day or on another machine: CI, hooks, Kapelle's own."""


@frozen
class MergeRules:
    """How a run's changes go through the merge queue."""

    batch: int = 16
    """How many changes are gated together at most."""
    wait: timedelta = timedelta(0)
    """How long a batch that is not full waits for more."""
    protect: tuple[str, ...] = PROTECTED
    """Globs of files whose change waits for a person."""


@frozen
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
    """The key of the receipt for its own tree, made in the agent's workspace."""
    proof: str | None = None
    """The key of the receipt for the tree that it was merged into."""
    batch_id: BatchId | None = None
    """The batch with which it is being tried on the target, or was when it left the queue."""
    red: str = ""
    """The tree that failed with it, of a suspect and of one that was returned for it; ``-`` when there was no tree."""
    protected: tuple[str, ...] = ()
    """Protected files that it changes; it waits for a person then."""
    approved_by: str = ""
    """Who let a change of protected files through."""
    note: str = ""

    @property
    def waits_for_a_person(self) -> bool:
        """Whether it may not be merged before a person has seen it."""
        return bool(self.protected) and not self.approved_by


@frozen
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
    """Why the target could not be moved to the tip, when it could not; what to do about it stands behind the first line."""

    @property
    def why(self) -> str:
        """Why the target could not be moved, in one line; empty when it could."""
        return self.held_up.partition("\n")[0]

    @property
    def remedy(self) -> str:
        """What a person can do about it, as far as that is known."""
        return " ".join(self.held_up.partition("\n")[2].split())


def hold_up(integration: Integration, why: str, remedy: str) -> Integration:
    """Return *integration* with why its target could not be moved, and what to do about it."""
    return replace(integration, held_up=f"{' '.join(why.split())}\n{remedy}".strip())


def undelivered(integration: Integration | None) -> str | None:
    """Return the commit that holds merged work which the target does not have yet, or None when it has all of it.

    Once everything is delivered the target alone says what holds: a person may have taken work off it again.
    """
    return integration.tip if integration is not None and integration.tip != integration.delivered else None


def order(changes: Iterable[Change]) -> list[Change]:
    """Return the queued *changes* in the order in which they are merged."""
    queued = [change for change in changes if change.state is ChangeState.QUEUED]
    return sorted(queued, key=lambda change: (change.rank, change.change_id))


@frozen
class Batch:
    """Changes that are tried together, in this order."""

    changes: tuple[Change, ...]
    again: bool = False
    """Whether this is the one change that bisection named, tried once more."""


@frozen
class NotBefore:
    """The batch is not full, and waits for more until then."""

    moment: datetime


def next_batch(
    changes: Iterable[Change], kin: Mapping[ChangeId, Hashable], rules: MergeRules, now: datetime
) -> Batch | NotBefore | None:
    """Return what is tried next on one target, or None when nothing waits for it.

    *kin* says which changes can be gated together: those with an equal value, which stands for the gate and all that its
    answer depends on. The order is kept: a batch is always the beginning of the queue. *rules* are those of its first change.
    """
    queue = [change for change in order(changes) if not change.waits_for_a_person]
    suspects = [change for change in queue if change.red]
    if len(suspects) == 1:
        return Batch(changes=(suspects[0],), again=True)
    if suspects:
        return Batch(changes=tuple(suspects[: (len(suspects) + 1) // 2]))
    if not queue:
        return None
    alike: list[Change] = []
    for change in queue:
        if len(alike) == rules.batch or kin[change.change_id] != kin[queue[0].change_id]:
            break
        alike.append(change)
    until = min(change.ready_at for change in alike) + rules.wait
    if len(alike) < rules.batch and now < until:
        return NotBefore(moment=until)
    return Batch(changes=tuple(alike))


def protected(files: Iterable[str], globs: Sequence[str]) -> tuple[str, ...]:
    """Return those of *files* that one of *globs* protects.

    A glob without a slash fits a name in any directory; ``*`` fits slashes too. Letters of either case are the same, as they
    are to some file systems. What stands in place of a directory that leads to a protected file counts as well: a link there
    would lead elsewhere.
    """
    patterns = [glob.casefold() for glob in globs]
    return tuple(name for name in files if any(_fits(name.casefold(), pattern) for pattern in patterns))


def _fits(name: str, pattern: str) -> bool:
    if fnmatchcase(name, pattern) or ("/" not in pattern and fnmatchcase(name.rpartition("/")[2], pattern)):
        return True
    fixed = pattern.split("*", 1)[0]
    return fixed.startswith(f"{name}/")
