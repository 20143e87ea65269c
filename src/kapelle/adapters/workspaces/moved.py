"""Worktrees that were moved without git: its record says where they were, and git works in them only when it is told.

The ``.git`` file of a worktree is the agent's to write, so it is believed only as far as the record that it names says the
same: a record that stands for the old place is told the new one, and nothing else is written anywhere.
"""

import os
import shlex
from pathlib import Path

from kapelle.adapters.system.locks import COPIED

NAMES = b"gitdir: "
LONGEST = 8192
"""Bytes of a .git file that are looked at."""


def record_named(worktree: Path) -> Path | None:
    """Return the record that the .git file in *worktree* names, whether it is there or not; None when it names none."""
    told = worktree / ".git"
    try:
        if told.is_symlink() or not told.is_file():
            return None
        with told.open("rb") as stream:
            said = stream.read(LONGEST)
    except OSError:
        return None
    if not said.startswith(NAMES) or b"\0" in said:
        return None
    record = Path(os.path.normpath(worktree / os.fsdecode(said.removeprefix(NAMES).rstrip(b"\r\n"))))
    return record if record.parent.name == "worktrees" else None


def stands_for(record: Path) -> str | None:
    """Return the place of the worktree that *record* stands for; None when it is no record of a worktree of Kapelle's."""
    pointing = record / "gitdir"
    try:
        if record.is_symlink() or pointing.is_symlink() or not (record / COPIED).is_file():
            return None
        return os.path.realpath((record / pointing.read_text().strip()).parent)
    except (OSError, ValueError):
        return None


def repoint(worktree: Path, before: str) -> bool:
    """Let git know that the worktree which was at *before* is now at *worktree*; say whether it does.

    Raises:
        OSError: the record cannot be written.
    """
    record = record_named(worktree)
    if record is None or stands_for(record) != os.path.realpath(before):
        return False
    fresh = record / "gitdir.new"
    fresh.unlink(missing_ok=True)
    with fresh.open("x", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(f"{worktree.absolute()}/.git\n")
    fresh.replace(record / "gitdir")
    return True


def how_to_repair(worktree: Path) -> str | None:
    """Return the command that lets git know where *worktree* is; None when it does, or when it is no worktree."""
    record = record_named(worktree)
    if record is None or stands_for(record) == os.path.realpath(worktree):
        return None
    common = record.parent.parent
    place = common.parent if common.name == ".git" else common
    return shlex.join(["git", "-C", str(place), "worktree", "repair", str(worktree)])
