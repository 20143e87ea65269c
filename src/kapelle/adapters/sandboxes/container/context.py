"""What an image is built from: the files beside a Containerfile, without those that it is not to have."""

import os
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

ALWAYS = ".git"
"""Left out wherever it is: it holds all that ever was in the repository, and changes with every command."""
IGNORING = (".containerignore", ".dockerignore")
"""Files that name what else is left out; the first that is there is read."""


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files in and below *folder* that an image may be built from; links are none.

    Raises:
        OSError: a directory, or the file that names what is left out, cannot be read.
    """
    rules = list(_rules(folder))
    exceptions = any(not out for out, _ in rules)
    for top, folders, names in os.walk(folder, onerror=_refuse):
        within = PurePosixPath(top).relative_to(folder).parts
        # Where there are exceptions, what is left out may hold what is not.
        kept = [name for name in folders if name != ALWAYS and (exceptions or not _left_out(rules, (*within, name)))]
        folders[:] = kept
        for name in names:
            path = Path(top, name)
            if name != ALWAYS and not _left_out(rules, (*within, name)) and path.is_file() and not path.is_symlink():
                yield path


def _refuse(error: OSError) -> None:
    raise error


def _rules(folder: Path) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """Yield the lines of the file that names what is left out: whether it says so (or the contrary), and a path's pattern."""
    text = ""
    for name in IGNORING:
        with suppress(FileNotFoundError):
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            break
    for line in text.splitlines():
        pattern = line.strip()
        out = not pattern.startswith("!")
        parts = PurePosixPath(pattern.removeprefix("!").strip().strip("/")).parts
        if parts and not pattern.startswith("#"):
            yield out, parts


def _left_out(rules: list[tuple[bool, tuple[str, ...]]], path: tuple[str, ...]) -> bool:
    """Say whether *path* is left out: the last line that is about it, or about a directory above it, counts."""
    return next((out for out, pattern in reversed(rules) if _covers(pattern, path)), False)


def _covers(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_covers(pattern[1:], path[number:]) for number in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _covers(pattern[1:], path[1:])
