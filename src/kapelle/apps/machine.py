"""What `kapelle doctor` asks of the machine it runs on."""

from collections.abc import Sequence
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
