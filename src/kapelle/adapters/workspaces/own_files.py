"""Git's own files, read without git: calling it for each look costs more than all that it does.

Whoever can write there may have put anything in their place; whatever is not as git leaves it is for git to judge.
"""

import os
import re
import stat
from pathlib import Path

FULL = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
"""The full name of a commit."""
LONGEST = 1 << 20
"""Bytes that are read of a file; git searches more of them faster."""


class NotKnown(Exception):  # it says what is so, not what went wrong
    """Git has to be asked."""


def git_dir(repository: str) -> Path:
    """Return where git keeps what belongs to the checkout *repository*, in files as everybody has them.

    Raises:
        NotKnown: it keeps it elsewhere, or in another way.
    """
    folder = Path(repository, ".git")
    # A file there leads elsewhere, and what has no head is none; a worktree has a part of its own; newer stores are tables.
    if not is_there(folder / "HEAD") or is_there(folder / "commondir") or is_there(folder / "reftable"):
        raise NotKnown
    return folder


def is_there(path: Path) -> bool:
    """Say whether there is anything at *path*, be it a link that leads nowhere.

    Raises:
        NotKnown: it cannot be looked at.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        # A link to a name that is too long, or a folder of somebody else's.
        raise NotKnown from error
    return True


def text_of(path: Path) -> str | None:
    """Return what stands in the file *path*; None when there is none.

    Raises:
        NotKnown: it is no file, no text, longer than ``LONGEST``, or being written.
    """
    found = bytes_of(path)
    try:
        return None if found is None else found.decode()
    except UnicodeDecodeError as error:
        raise NotKnown from error


def bytes_of(path: Path) -> bytes | None:
    """Return what is in the file *path*, as ``text_of`` does."""
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
    except OSError as error:
        raise NotKnown from error
    else:
        return found
    finally:
        os.close(handle)
