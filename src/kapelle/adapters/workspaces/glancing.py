"""Looking at a workspace while its agent works in it: which files differ from its base, and when they were last written to."""

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

from kapelle.adapters.system.git import Git, plain
from kapelle.core.git import Glance

MOST = 2_000
"""Files that are looked at one by one; of more, their names have to do."""


async def glance(git: Git, path: str, base: str, copied: Collection[str]) -> Glance:
    """Return what differs from *base* in the worktree at *path*, but for what was *copied* in."""
    diff = ("diff", "--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=all", "--name-only", "-z", base)
    changed = (await git.do(*diff)).fields
    new = (await git.do("ls-files", "--others", "--exclude-standard", "-z")).fields
    names = sorted({*changed, *new} - set(copied))
    seen = hashlib.sha256()
    for name in names:
        seen.update(f"{name}\0{_written(Path(path) / name) if len(names) <= MOST else ''}\0".encode(errors="surrogateescape"))
    return Glance(files=tuple(plain(name) for name in names), mark=seen.hexdigest())


def _written(path: Path) -> str:
    try:
        found = os.lstat(path)
    except OSError:
        # It was deleted.
        return "gone"
    return f"{found.st_size} {found.st_mtime_ns}"
