"""The ports of git: workspaces, in which agents work, and repositories, which their changes go to; see ``core.ports``."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from kapelle.core.frozen import frozen
from kapelle.core.hiding import NOTHING, Hiding, Leak
from kapelle.core.ids import WorkspaceId
from kapelle.core.isolation import Mount


@frozen
class RepositoryFacts:
    """A repository that can be worked on."""

    root: str
    """The top directory of the operator's checkout."""
    git_dir: str
    """The common git directory: the same for all worktrees of a repository."""
    branch: str | None
    """The branch that is checked out at *root*, or None when HEAD is detached."""
    head: str


@frozen
class WorkspaceOrder:
    """A workspace to prepare."""

    workspace_id: WorkspaceId
    path: str
    """Where it is to be. It must be free, or hold this very workspace from before a crash."""
    repository: str | None
    """The root of the operator's checkout; None for a directory without git."""
    base: str | None = None
    copy: tuple[str, ...] = ()
    """Files (globs, relative to the root) that are copied in although git does not know them, such as ``.env``."""


@frozen
class Signature:
    """Who did a piece of work, and for what."""

    author: str
    email: str
    message: str
    """The whole commit message, with its trailers."""


@frozen
class Commit:
    """A commit and its tree."""

    commit: str
    tree: str
    leaks: tuple[Leak, ...] = ()
    """Where the values of secrets, and what looks like one, were found."""

    @property
    def refused(self) -> bool:
        """Whether nothing was committed, since there is the value of a secret in it."""
        return any(leak.secret for leak in self.leaks)


@frozen
class Conflict:
    """One file that both sides changed in ways that do not fit."""

    file: str
    reason: str
    """git's own word for it, such as ``content`` or ``modify/delete``."""


@frozen
class Glance:
    """What was seen of a workspace while somebody may work in it."""

    files: tuple[str, ...]
    """Those that differ from where the work began, by name; none that git would ignore, or that was copied in."""
    mark: str
    """Another one when one of these files was written to since."""


class Workspaces(Protocol):
    """Directories in which agents work: detached git worktrees. Host git trusts nothing that is in them."""

    async def prepare(self, order: WorkspaceOrder) -> None:
        """Make the workspace: a worktree at ``base`` with the files to copy in it.

        Raises:
            WorkspaceFailed: it cannot be made; the message says what to do.
        """
        ...

    async def commit(self, path: str, repository: str, signature: Signature, hiding: Hiding = NOTHING) -> Commit:
        """Commit everything that git would not ignore (but nothing that was copied in) and return the head.

        With nothing to commit, the head as it is. A merge that ``bring_in`` began is concluded with both parents.

        With a value of *hiding* in a file, in the name of one, or in what the agent itself has committed, nothing comes into
        the repository: the leaks are returned with the head as it was, what the agent committed is undone, and its files stay.
        """
        ...

    async def snapshot(self, path: str, repository: str, ref: str, hiding: Hiding = NOTHING) -> str | None:
        """Keep everything in the workspace that git would not ignore as a commit under *ref* (``refs/kapelle/...``).

        Returns the commit, or None when there is nothing beyond what a branch of the repository holds already. Neither the
        workspace nor its index is changed, but that what is closed to its own owner is opened. In the place of values of
        *hiding* stand their names.
        """
        ...

    async def cleanse(self, repository: str, hiding: Hiding, since: datetime) -> int:
        """Delete what an agent wrote into the repository itself after *since*, holds a value of *hiding*, and nothing needs.

        Returns how many objects that were.
        """
        ...

    async def bring_in(self, path: str, repository: str, commit: str, hiding: Hiding = NOTHING) -> Sequence[Conflict]:
        """Merge *commit* into the workspace; conflicts are left in the files with markers, for the agent to resolve.

        What the agent has committed with a value of *hiding* in it is undone, as by ``commit``.
        """
        ...

    async def glance(self, path: str, repository: str, base: str) -> Glance:
        """Return which files of the workspace differ from *base* just now, and change nothing.

        Nothing is held still for it: what is written meanwhile may be seen or not.
        """
        ...

    async def leftover_markers(self, path: str, repository: str, base: str) -> Sequence[str]:
        """Return the files changed since *base* that still hold conflict markers."""
        ...

    async def put(self, path: str, repository: str, commit: str, *, bare: bool = False) -> None:
        """Make a clean workspace hold exactly *commit*; ignored files (build caches, dependencies) stay.

        *bare*: those go, too.
        """
        ...

    async def reach(self, path: str, repository: str) -> Sequence[Mount]:
        """Return what git needs of the machine to work inside of the workspace, without being able to harm anything else.

        From then on the workspace has a second git directory, for those inside: what they commit is taken in by ``commit``
        and ``snapshot``, and what is done here is shown to them.
        """
        ...

    async def remove(self, path: str, repository: str | None) -> None:
        """Remove the workspace and git's record of it; no effect when it is gone."""
        ...

    async def set_aside(self, path: str, folder: str) -> str:
        """Move the directory at *path* into *folder*, under a name that is free there, and return where it is now.

        Raises:
            WorkspaceFailed: it cannot be moved.
        """
        ...

    async def present(self, folder: str) -> Sequence[str]:
        """Return the paths of all workspaces under *folder*, for finding those that no row knows."""
        ...


@frozen
class Merged:
    """What came of merging one commit onto another."""

    commit: Commit | None
    """None when there are conflicts."""
    conflicts: tuple[Conflict, ...] = ()
    unchanged: bool = False
    """The commit was in already; ``commit`` is the one it was merged onto."""


@frozen
class Delivered:
    """What came of moving a target."""

    moved: bool
    reason: str = ""
    """Why it was not moved, in words for people: the checkout has changes in the way, the target moved meanwhile."""
    remedy: str = ""
    """What a person can do about it."""
    tip: str = ""
    """Where the target is now."""


@frozen
class Ref:
    """A name for a commit."""

    name: str
    commit: str
    at: datetime
    """When the commit was made."""
    subject: str
    """The first line of its message."""


class Repositories(Protocol):
    """The git repositories that tasks change, and their refs. The operator's checkout is never made dirty."""

    async def inspect(self, path: str) -> RepositoryFacts:
        """Return the facts of the repository that *path* is in.

        Raises:
            RepositoryRefused: not a repository, a bare or empty one, or one that cannot be worked on safely.
        """
        ...

    async def resolve(self, repository: str, name: str) -> str | None:
        """Return the commit that *name* (a branch, tag or commit) stands for, or None."""
        ...

    async def tree(self, repository: str, commit: str) -> str:
        """Return the tree of *commit*."""
        ...

    async def is_ancestor(self, repository: str, older: str, newer: str) -> bool:
        """Say whether *newer* holds everything that *older* does."""
        ...

    async def changed(self, repository: str, base: str, head: str) -> Sequence[str]:
        """Return the files in which *head* differs from *base*."""
        ...

    async def diff(self, repository: str, base: str, head: str, files: Sequence[str] = (), limit: int = 20_000) -> str:
        """Return the differences as text, at most *limit* characters."""
        ...

    async def merge(self, repository: str, onto: str, commit: str, signature: Signature) -> Merged:
        """Merge *commit* onto *onto* without touching any directory; always makes a merge commit, first parent *onto*."""
        ...

    async def join(self, repository: str, tree: str, parents: Sequence[str], signature: Signature) -> str:
        """Make a commit that holds *tree* and has *parents*, in this order, and return it."""
        ...

    async def since(self, repository: str, base: str, head: str) -> Sequence[str]:
        """Return the first-parent commits of *head* that *base* does not hold, the newest first: what came to a branch."""
        ...

    async def move_ref(self, repository: str, ref: str, new: str, old: str | None) -> bool:
        """Move *ref* to *new* if it is at *old* now (None: if it does not exist); returns whether it was."""
        ...

    async def delete_ref(self, repository: str, ref: str, commit: str | None = None) -> None:
        """Delete *ref*; no effect when it does not exist, or is not at *commit* (any more) where that is given."""
        ...

    async def refs(self, repository: str, prefix: str) -> Sequence[Ref]:
        """Return all refs under *prefix*, by name."""
        ...

    async def branches_with(self, repository: str, commit: str) -> Sequence[Ref]:
        """Return the branches of the repository, and those that were fetched, that hold *commit*, by name."""
        ...

    async def deliver(self, repository: str, target: str, commit: str, expected: str) -> Delivered:
        """Move the branch *target* from *expected* to *commit*, its descendant.

        At once when nobody has it checked out; otherwise by a fast-forward merge in that checkout, when git allows it.
        """
        ...
