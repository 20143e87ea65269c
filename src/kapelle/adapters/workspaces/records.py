"""git's records of worktrees that are gone: `git worktree list` shows them for ever when their state directory was deleted.

Only Kapelle's own are touched: those with the list of copied files that ``GitWorkspaces.prepare`` writes into every one.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from kapelle.adapters.system.git import Git
from kapelle.adapters.workspaces.worktrees import COPIED, commit_tree, held
from kapelle.core.frozen import frozen
from kapelle.core.ports import Signature

UNFIT = re.compile(r"[^\w-]+")
"""What cannot be in the name of a ref."""


@frozen
class GoneWorktree:
    """A worktree of Kapelle's of which only git's record is left."""

    record: str
    """The folder of the record, in the git directory of the repository."""
    path: str
    """Where the worktree was."""


class GitRecords:
    """What a repository still knows of worktrees that are gone."""

    async def gone(self, git_dir: str) -> Sequence[GoneWorktree]:
        """Return Kapelle's worktrees that are gone, with the repository whose common git directory *git_dir* is."""
        found: list[GoneWorktree] = []
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
                found.append(GoneWorktree(record=str(record), path=path))
        return found

    async def forget(self, repository: str, gone: GoneWorktree) -> str | None:
        """Remove the record of *gone*; return the ref under which its last commit is kept, if no other holds that.

        Raises:
            GitFailed: git failed; the record is still there.
        """
        git = Git(repository, git_dir=gone.record)
        commit, ref = await _last(git), None
        if commit is not None and not await held(git, commit):
            name = UNFIT.sub("-", Path(gone.path).name).strip("-") or "workspace"
            ref = f"refs/kapelle/gone/kept/orphan/{name}-{commit[:12]}"
            await git.do("update-ref", ref, commit)
        await Git(repository).do("worktree", "remove", "--force", "--force", gone.path)
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
