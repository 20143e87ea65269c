"""Whose files are: when Kapelle runs as root, what works in a sandbox runs as somebody who owns nothing else."""

import os

from kapelle.adapters.system.walking import walk

AGENT = 59990
"""The user and the group of sandboxed processes that are started by root: nobody's on Debian, Fedora and macOS."""


def agent() -> int | None:
    """Return the user that sandboxed processes run as, or None when they run as whoever started them."""
    return AGENT if os.geteuid() == 0 else None


def give(path: str, owner: int | None) -> None:
    """Give *path* and everything below it to *owner*; links are given themselves, and not followed. None gives nothing.

    Raises:
        OSError: it cannot be given.
    """
    if owner is None:
        return
    if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114  # a str is at hand
        for here, name, facts in walk(path):
            if facts.st_uid != owner:
                os.chown(name, owner, owner, dir_fd=here, follow_symlinks=False)
    os.chown(path, owner, owner, follow_symlinks=False)


def give_like(path: str, other: str) -> None:
    """Give *path* to whom *other* belongs, when that is somebody else than who runs this."""
    owner = os.lstat(other).st_uid
    if owner != os.geteuid():
        give(path, owner)
