"""What `kapelle doctor` asks of the machine it runs on, and of git's records of worktrees."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Machine(Protocol):
    """What is asked of the machine."""

    def version_of(self, program: str) -> str | None:
        """Return the version that *program* says it has, or None when it cannot be started."""
        ...

    def port_is_free(self, port: int) -> bool:
        """Say whether *port* of this machine can be listened on."""
        ...

    def stale_locks(self, git_dir: str) -> Sequence[str]:
        """Return the locks that a git which is gone left behind in *git_dir*."""
        ...

    def remove_lock(self, path: str) -> None:
        """Remove such a lock; no effect when it is gone."""
        ...

    def store_problems(self, path: str) -> Sequence[str]:
        """Return what is wrong with the database at *path*; empty when nothing is."""
        ...

    def writable(self, folder: str) -> bool:
        """Say whether files can be made in *folder*."""
        ...


class Records(Protocol):
    """What git records of worktrees of Kapelle's: of those that are gone, and of those that were moved."""

    def gone(self, git_dir: str) -> Mapping[str, str]:
        """Return where worktrees were that are gone, by their record in the common git directory *git_dir*."""
        ...

    def moved(self, folder: str) -> Mapping[str, str]:
        """Return the worktrees in *folder* by the record that each of them names."""
        ...

    def repair(self, path: str, before: str) -> bool:
        """Let git know that the worktree which was at *before* is now at *path*; say whether it does.

        Raises:
            WorkspaceFailed: git's record cannot be written.
        """
        ...

    def how_to_repair(self, path: str) -> str | None:
        """Return the command that lets git know where the worktree at *path* is; None when there is nothing to repair."""
        ...

    async def forget(self, repository: str, record: str, path: str) -> str | None:
        """Remove the record of the worktree that was at *path*; return the ref that keeps its last commit, if no other does.

        Raises:
            GitFailed: git failed; the record is still there.
        """
        ...
