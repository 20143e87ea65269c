"""Locks that a git left behind which was killed: every later command would fail of them, for ever."""

import re
import time
from contextlib import suppress
from pathlib import Path

import psutil

IN_THE_WAY = re.compile(r"Unable to create '(?P<path>.+\.lock)': File exists")
"""What git says, in the locale it is called with."""
LEFT_BEHIND = ("index.lock", "HEAD.lock", "packed-refs.lock", "config.lock", "worktrees/*/index.lock", "worktrees/*/HEAD.lock")
"""Where git keeps its locks, in the git directory of a repository."""
OLD = 60.0
"""Seconds after which a lock that nobody holds was left behind; git holds one for milliseconds, or while an editor is open."""


def remove_stale_lock(said: str, folder: str) -> bool:
    """Remove the lock that git said was in its way, if it is old and no git is at work there; say whether it was removed."""
    found = IN_THE_WAY.search(said)
    if found is None:
        return False
    lock = Path(folder, found["path"])
    with suppress(OSError):
        if is_stale(lock, Path(folder)):
            lock.unlink()
            return True
    return False


def is_stale(lock: Path, folder: Path) -> bool:
    """Say whether *lock*, met by a git in *folder*, is old and belongs to no git that is at work there."""
    try:
        age = time.time() - lock.stat().st_mtime  # noqa: TID251  # the file system's own time is meant
    except OSError:
        return False
    return age >= OLD and not _git_at_work(lock, folder)


def _git_at_work(lock: Path, folder: Path) -> bool:
    """Say whether a git runs that may hold *lock*: one in this folder or in the repository's, or one that has it open."""
    places = [place.resolve() for place in (folder, lock.parent)]
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if not process.name().startswith("git"):
                continue
            where = Path(process.cwd())
            if any(where.is_relative_to(place) or place.is_relative_to(where) for place in places):
                return True
            if any(Path(opened.path) == lock for opened in process.open_files()):
                return True
    return False
