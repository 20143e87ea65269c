"""Looking through directories in which somebody else has left what they like: deeper than a path is long, full of links.

``os.walk`` and ``Path.rglob`` climb down by paths, which end at 4,096 bytes, and by calls, which end at a thousand.
"""

import os
import stat
from collections.abc import Iterator

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
BLOCK = 512
"""Bytes in what the system counts the room of a file in, whatever the blocks of its disk."""
LONG = 2_000
"""Bytes of a path within an open directory; what is deeper is opened from a directory further down."""


class _Open:
    """An open directory; it is closed when nothing below it is to be looked at any more."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __del__(self) -> None:
        os.close(self.handle)


def walk(path: str, *, closed: bool = False) -> Iterator[tuple[int, str, os.stat_result]]:
    """Yield what is below the directory *path*: an open directory, a name in it, and what is known of that.

    No link is followed, and what goes meanwhile is left out; with *closed*, so is what cannot be looked at.

    Raises:
        OSError: a directory cannot be looked at.
    """
    todo = [(_Open(os.open(path, FOLDER)), ".")]
    while todo:
        base, within = todo.pop()
        try:
            here = _Open(os.open(within, FOLDER, dir_fd=base.handle))
        except FileNotFoundError:
            continue
        except OSError:
            if not closed:
                raise
            continue
        with os.scandir(here.handle) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            try:
                facts = os.stat(name, dir_fd=here.handle, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError:
                if not closed:
                    raise
                continue
            if stat.S_ISDIR(facts.st_mode):
                below = f"{within}/{name}"
                todo.append((base, below) if len(os.fsencode(below)) < LONG else (here, name))
            yield here.handle, name, facts


def open_up(path: str) -> bool:
    """Open what is closed to its own owner, who calls this: the directory *path* and what is below it. Say whether any was.

    What belongs to somebody else stays as it is. Nobody may be at work in it meanwhile: what is found to be no link is taken
    to be none.

    Raises:
        OSError: something is the owner's and cannot be opened.
    """
    me = os.geteuid()
    opened = _open_up(path, os.lstat(path), me, None)
    for here, name, facts in walk(path, closed=True):
        # Before it is looked into: a directory is told of first.
        opened = _open_up(name, facts, me, here) or opened
    return opened


def _open_up(name: str, facts: os.stat_result, me: int, within: int | None) -> bool:
    wanted = stat.S_IRWXU if stat.S_ISDIR(facts.st_mode) else stat.S_IRUSR if stat.S_ISREG(facts.st_mode) else 0
    if facts.st_uid != me or facts.st_mode & wanted == wanted:
        return False
    os.chmod(name, stat.S_IMODE(facts.st_mode) | wanted, dir_fd=within)
    return True


def taken(path: str) -> tuple[int, float]:
    """Return what *path* and all that is below it takes up on the disk, in bytes, and when any of it was last written to.

    What cannot be looked at counts for itself alone.

    Raises:
        OSError: *path* itself cannot be looked at.
    """
    about = os.lstat(path)
    size, newest, seen = about.st_blocks * BLOCK, about.st_mtime, set[tuple[int, int]]()
    for _, _, facts in walk(path, closed=True) if stat.S_ISDIR(about.st_mode) else ():
        newest = max(newest, facts.st_mtime)
        # A file may have several names; a folder has two, and more with each folder in it.
        if facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode):
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
        size += facts.st_blocks * BLOCK
    return size, newest
