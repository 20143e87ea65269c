"""What a ref points to, read from the files that git keeps it in: calling git for each look costs more than all that it does.

Formats: gitrepository-layout(5), and "PACKED-REFS" there. Where refs are kept in any other way, git has to be asked.
"""

import re
from pathlib import Path

from kapelle.adapters.workspaces.own_files import FULL, NotKnown, git_dir, text_of

PLAIN = re.compile(r"refs/(heads|kapelle)(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*)+")
"""Refs that are the same for all worktrees and point to commits."""
SYMBOLIC = "ref: "


def read_ref(repository: str, name: str) -> str | None:
    """Return the commit that the ref *name* of the checkout *repository* points to; None when there is no such ref.

    Whether that commit is there is not looked at.

    Raises:
        NotKnown: it cannot be told from files alone.
    """
    if not PLAIN.fullmatch(name) or ".." in name or any(part.endswith((".", ".lock")) for part in name.split("/")):
        raise NotKnown
    folder = git_dir(repository)
    # In this order: git packs a ref before it removes its own file.
    found = text_of(folder / name)
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
    head = (text_of(git_dir(repository) / "HEAD") or "").strip()
    if FULL.fullmatch(head):
        return None
    if not head.startswith(SYMBOLIC):
        raise NotKnown
    return head.removeprefix(SYMBOLIC).strip()


def _packed(folder: Path, name: str) -> str | None:
    for line in (text_of(folder / "packed-refs") or "").splitlines():
        commit, _, packed = line.partition(" ")
        if packed == name and FULL.fullmatch(commit):
            return commit
    return None
