"""git's records of worktrees that are gone: `git worktree list` shows them for ever when their state directory was deleted.

Only Kapelle's own are touched: those with the list of copied files that ``GitWorkspaces.prepare`` writes into every one.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from kapelle.adapters.system.git import Git
from kapelle.adapters.system.locks import COPIED
from kapelle.adapters.workspaces.moved import how_to_repair, record_named, repoint
from kapelle.adapters.workspaces.worktrees import commit_tree, held
from kapelle.core.errors import WorkspaceFailed
from kapelle.core.git import Signature

UNFIT = re.compile(r"[^\w-]+")
"""What cannot be in the name of a ref."""


class GitRecords:
    """See ``apps.machine.Records``."""

    def gone(self, git_dir: str) -> Mapping[str, str]:
        found: dict[str, str] = {}
        records = Path(git_dir, "worktrees")
        for record in sorted(records.iterdir()) if records.is_dir() else ():
            # One that is locked may be on a disk that is away just now; git locks one that it is making, too.
            if not (record / COPIED).exists() or (record / "locked").exists():
                continue
            try:
                pointed = (record / "gitdir").read_text().strip()
            except OSError:
                continue
            path = os.path.realpath((record / pointed).parent)
            if not os.path.lexists(path):  # a link that leads nowhere is there, too
                found[os.path.realpath(record)] = path
        return found

    def moved(self, folder: str) -> Mapping[str, str]:
        place = Path(folder)
        named = {path: record_named(path) for path in (sorted(place.iterdir()) if place.is_dir() else ())}
        return {os.path.realpath(record): str(path) for path, record in named.items() if record is not None}

    def repair(self, path: str, before: str) -> bool:
        try:
            return repoint(Path(path), before)
        except OSError as error:
            raise WorkspaceFailed(f"git cannot be told where {path} is: {error.strerror}") from error

    def how_to_repair(self, path: str) -> str | None:
        return how_to_repair(Path(path))

    async def forget(self, repository: str, record: str, path: str) -> str | None:
        git = Git(repository, git_dir=record)
        commit, ref = await _last(git), None
        if commit is not None and not await held(git, commit):
            name = UNFIT.sub("-", Path(path).name).strip("-") or "workspace"
            ref = f"refs/kapelle/gone/kept/orphan/{name}-{commit[:12]}"
            await git.do("update-ref", ref, commit)
        await Git(repository).do("worktree", "remove", "--force", "--force", path)
        return ref


async def _last(git: Git) -> str | None:
    """Return the last commit of the worktree, with what was staged on top of it; None when it has none."""
    at = await git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if at.code != 0:
        return None
    # In the middle of a merge an index is no tree; then the head is all there is.
    staged = await git.ask("write-tree")
    if staged.code != 0 or staged.text == (await git.do("rev-parse", "HEAD^{tree}")).text:
        return at.text
    message = "What was staged in a workspace that is gone\n"
    signature = Signature(author="Kapelle", email="snapshot@agents.kapelle.invalid", message=message)
    return await commit_tree(git, staged.text, [at.text], signature)
