"""Locks that a git left behind which was killed: every later command would fail of them, for ever."""

import asyncio
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
COPIED = "kapelle-copied"
"""A file in the private git directory of Kapelle's worktrees that lists what was copied in: it is never committed."""
OURS = 2.0
"""The same, for locks of those: only an agent's git and our own are ever at work there, and both run on this machine."""
HELD = 1.0
"""Seconds that are waited for a git that is at work there."""
LOOK = 0.1
"""Seconds between looks at a lock that is waited for."""
PATIENCE = OLD + 5.0
"""Seconds that are waited in all."""


async def out_of_the_way(said: str, folder: str, *, patience: float = PATIENCE) -> bool:
    """Wait until the lock that git said was in its way is not any more, so many seconds; say whether trying again is worth it.

    One that a live git may hold is waited for a moment, and left to it. One that nobody holds was left behind by a git that was
    killed: it is removed as soon as it is old enough for that to be sure.
    """
    found = IN_THE_WAY.search(said)
    if found is None:
        return False
    lock, begun = Path(folder, found["path"]), time.monotonic()
    while (waited := time.monotonic() - begun) < patience:
        age = _age(lock)
        if age is None:
            return True
        # In a thread: every process of the machine is looked at.
        if await asyncio.to_thread(_git_at_work, lock, Path(folder)):
            if waited >= HELD:
                return False
        elif age >= _old(lock):
            with suppress(OSError):
                lock.unlink(missing_ok=True)
                return True
            # What cannot be removed stays in the way, and is told.
            return False
        await asyncio.sleep(LOOK)
    return False


def is_stale(lock: Path, folder: Path) -> bool:
    """Say whether *lock*, met by a git in *folder*, is old and belongs to no git that is at work there."""
    age = _age(lock)
    return age is not None and age >= OLD and not _git_at_work(lock, folder)


def _age(lock: Path) -> float | None:
    """Return how many seconds ago *lock* was made, or None when it is gone."""
    try:
        return time.time() - lock.stat().st_mtime  # noqa: TID251  # the file system's own time is meant
    except OSError:
        return None


def _old(lock: Path) -> float:
    """Return after how many seconds *lock* was left behind if nobody holds it."""
    return OURS if lock.parent.parent.name == "worktrees" and (lock.parent / COPIED).exists() else OLD


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
