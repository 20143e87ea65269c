"""Taking values out of a repository into which an agent has written them itself.

In a sandbox with a file system of its own an agent cannot: its objects are apart. In ``process`` what it commits or stages is
in the repository at once, as loose objects. Of those that are newer than its attempt, the ones that hold a value are deleted,
with the trees and commits that lead to them, unless a ref, a reflog, an index or another worktree needs them.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from kapelle.adapters.system.git import Git
from kapelle.core.frozen import frozen
from kapelle.core.hiding import Hiding

NAME = 38
"""Letters in the name of a file with an object, at least; the first two are its directory's."""
OID_BYTES = 20


@frozen
class Loose:
    """A loose object."""

    path: Path
    kind: str
    leads_to: frozenset[str]
    holds: bool
    """Whether it holds a value."""


async def cleanse(repository: str, objects: Path, hiding: Hiding, since: float) -> int:
    """Delete what holds a value, came after *since* and is needed by nothing; return how many objects that were."""
    newer = dict(_newer(objects, hiding, since))
    doomed = {oid for oid, found in newer.items() if found.holds}
    if not doomed:
        return 0
    while more := {oid for oid, found in newer.items() if oid not in doomed and found.leads_to & doomed}:
        doomed |= more
    needed = await _needed(Git(repository))
    gone = doomed - needed
    for oid in gone:
        newer[oid].path.unlink(missing_ok=True)
    return len(gone)


async def _needed(git: Git) -> set[str]:
    # Of all worktrees: what another agent, or a person, is at work on.
    listed = await git.do("rev-list", "--objects", "--no-object-names", "--all", "--reflog", "--indexed-objects")
    return set(listed.lines)


def _newer(objects: Path, hiding: Hiding, since: float) -> Iterator[tuple[str, Loose]]:
    for folder in os.scandir(objects):
        if len(folder.name) != 2 or not folder.is_dir():  # noqa: PLR2004  # the first two letters of a name
            continue
        for entry in os.scandir(folder.path):
            if len(entry.name) >= NAME and entry.stat().st_mtime >= since:
                found = _read(Path(entry.path), hiding, (len(entry.name) + 2) // 2)
                if found is not None:
                    yield folder.name + entry.name, found


def _read(path: Path, hiding: Hiding, size: int) -> Loose | None:
    try:
        data = zlib.decompress(path.read_bytes())
    except (OSError, zlib.error):
        # It went meanwhile, or is just being written; git itself judges what is broken.
        return None
    head, _, content = data.partition(b"\0")
    kind = head.partition(b" ")[0].decode("ascii", errors="replace")
    leads_to: frozenset[str] = frozenset()
    if kind == "tree":
        leads_to = frozenset(_entries(content, size))
    elif kind == "commit":
        lines = content.partition(b"\n\n")[0].split(b"\n")
        named = [line.split(b" ") for line in lines if line.startswith((b"tree ", b"parent "))]
        leads_to = frozenset(words[1].decode("ascii", errors="replace") for words in named)
    return Loose(path=path, kind=kind, leads_to=leads_to, holds=bool(hiding.found(content)))


def _entries(content: bytes, size: int) -> Iterator[str]:
    position = 0
    while (end := content.find(b"\0", position)) != -1:
        yield content[end + 1 : end + 1 + size].hex()
        position = end + 1 + size
