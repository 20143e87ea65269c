"""What a ref points to, read from the files that git keeps it in: calling git for each look costs more than all that it does.

Formats: gitrepository-layout(5), and "PACKED-REFS" there. Where refs are kept in any other way, git has to be asked.
"""

import os
import re
import stat
from pathlib import Path

FULL = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
"""The full name of a commit."""
PLAIN = re.compile(r"refs/(heads|kapelle)(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*)+")
"""Refs that are the same for all worktrees and point to commits."""
SYMBOLIC = "ref: "
LONGEST = 1 << 20
"""Bytes of packed refs that are read through here; git searches more of them faster."""


class NotKnown(Exception):  # it says what is so, not what went wrong
    """Git has to be asked."""


def read_ref(repository: str, name: str) -> str | None:
    """Return the commit that the ref *name* of the checkout *repository* points to; None when there is no such ref.

    Whether that commit is there is not looked at.

    Raises:
        NotKnown: it cannot be told from files alone.
    """
    if not PLAIN.fullmatch(name) or ".." in name or any(part.endswith((".", ".lock")) for part in name.split("/")):
        raise NotKnown
    folder = _git_dir(repository)
    # In this order: git packs a ref before it removes its own file.
    found = _text(folder / name)
    if found is None:
        return _packed(folder, name)
    if not FULL.fullmatch(found.strip()):
        raise NotKnown
    return found.strip()


def read_branch(repository: str) -> str | None:
    """Return the ref that is checked out in *repository*; None when its head is on none.

    Raises:
        NotKnown: it cannot be told from files alone.
    """
    head = (_text(_git_dir(repository) / "HEAD") or "").strip()
    if FULL.fullmatch(head):
        return None
    if not head.startswith(SYMBOLIC):
        raise NotKnown
    return head.removeprefix(SYMBOLIC).strip()


def _git_dir(repository: str) -> Path:
    folder = Path(repository, ".git")
    # A file there leads elsewhere; a worktree has a part of its own of what there is; newer stores are tables.
    if not folder.is_dir() or (folder / "commondir").exists() or (folder / "reftable").exists():
        raise NotKnown
    return folder


def _text(path: Path) -> str | None:
    """Return what stands in the file *path*; None when there is nothing."""
    try:
        # Whoever can write there may have put anything in its place: nobody waits for what is no file.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NotKnown from error
    try:
        kind = os.fstat(handle)
        if stat.S_ISDIR(kind.st_mode):
            # Of a ref that was deleted, or whose name goes on.
            return None
        if not stat.S_ISREG(kind.st_mode) or kind.st_size > LONGEST:
            raise NotKnown
        found = os.read(handle, LONGEST)
        if len(found) != kind.st_size:
            # It is being written just now, or did not come at once.
            raise NotKnown
        return found.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise NotKnown from error
    finally:
        os.close(handle)


def _packed(folder: Path, name: str) -> str | None:
    for line in (_text(folder / "packed-refs") or "").splitlines():
        commit, _, packed = line.partition(" ")
        if packed == name and FULL.fullmatch(commit):
            return commit
    return None
