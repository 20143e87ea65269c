"""Removing directories in which somebody else has left what they like.

What an agent leaves may be nested deeper than a path is long or a stack is high, may be closed to its own owner, and may be
full of links to what is not to be touched. So nothing is removed by a path of more than two names, and no link is followed:
whatever directory is met further down is moved to the top first. Each is moved once. Nobody may be at work in it any more.
"""

import os
from pathlib import Path
from uuid import uuid4

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OWNERS = 0o700


def remove_tree(path: Path) -> None:
    """Remove the directory *path* with everything in it.

    Raises:
        FileNotFoundError: there is none.
        OSError: something cannot be removed; what could be is gone.
    """
    top = _open(str(path), None)
    try:
        mark, moved = uuid4().hex, 0
        while entries := _entries(top):
            for name, is_folder in entries:
                if not is_folder:
                    os.unlink(name, dir_fd=top)
                    continue
                moved = _empty(name, top, mark, moved)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    path.rmdir()


def clear_tree(path: Path) -> None:
    """Remove *path*, which may be a directory, anything else, or not there at all.

    Raises:
        OSError: something cannot be removed.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return


def _empty(name: str, top: int, mark: str, moved: int) -> int:
    """Remove what is in the directory *name* but its directories, which are moved up; return how many were, till now."""
    folder = _open(name, top)
    try:
        for inner, is_folder in _entries(folder):
            if not is_folder:
                os.unlink(inner, dir_fd=folder)
                continue
            moved += 1
            try:
                os.rename(inner, f"{mark}-{moved}", src_dir_fd=folder, dst_dir_fd=top)
            except PermissionError:
                # Where it lies is written in itself: who moves it must be able to write it. It is a directory, and no link.
                os.chmod(inner, OWNERS, dir_fd=folder)
                os.rename(inner, f"{mark}-{moved}", src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    return moved


def _open(name: str, within: int | None) -> int:
    try:
        folder = os.open(name, FOLDER, dir_fd=within)
    except PermissionError:
        # It exists and is no link, or the reason would be another.
        os.chmod(name, OWNERS, dir_fd=within)
        folder = os.open(name, FOLDER, dir_fd=within)
    try:
        if os.fstat(folder).st_mode & OWNERS != OWNERS:
            # Package managers leave directories that even their owner may not write.
            os.fchmod(folder, OWNERS)
    except BaseException:
        os.close(folder)
        raise
    return folder


def _entries(folder: int) -> list[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
