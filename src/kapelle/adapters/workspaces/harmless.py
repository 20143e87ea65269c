"""What git is not to run in a workspace in which an agent works inside a sandbox: programs that the repository's users set up.

A filter, a merge driver or a converter is the operator's command, but git starts it in the workspace: ``python3 -m nbstripout``
would load what the agent has put there, outside of its sandbox. So none is started. From the beginning the files are those that
are stored, unfiltered, and what the agent makes of them is stored as it is; where a filter is ``required`` no agent works in a
sandbox; what a merge driver would have merged is a conflict, for the agent to resolve (gitattributes(5)).

Git LFS alone runs: what it does depends on no program in the workspace (git-lfs-config(5): what ``.lfsconfig`` may say).
"""

from collections.abc import Iterator
from pathlib import Path

from kapelle.adapters.system.git import Git
from kapelle.core.errors import GitFailed, WorkspaceFailed

PROGRAMS = r"^(filter\..*\.(clean|smudge|process)|merge\..*\.driver|diff\..*\.(textconv|command))$"
NOTHING_SET = 1
"""What ``git config`` ends with when nothing fits."""
LFS = ("git-lfs ", "git lfs ")
CONFLICT = "false"
"""A merge driver that fails: git takes both sides for in conflict."""


async def harmless(git: Git) -> Git:
    """Return *git* so that it starts none of the programs that are set up for its repository.

    Raises:
        GitFailed: the settings cannot be read.
    """
    asked = ("config", "--null", "--get-regexp", PROGRAMS)
    said = await git.ask(*asked)
    if said.code not in {0, NOTHING_SET}:
        raise GitFailed(f"the settings of git cannot be read: {said.error}")
    return git.set(_instead(said.fields))


async def as_stored(git: Git, git_dir: Path) -> None:
    """Let the files of a worktree, in which nobody has worked yet, be as they are stored: with no filter of the repository's.

    Otherwise whatever a filter had made of them would come into the next commit.

    Raises:
        WorkspaceFailed: a filter that they need is required.
        GitFailed: git failed.
    """
    plain = await harmless(git)
    if not any(name.startswith("filter.") for name, _ in plain.settings):
        return
    kept = git_dir / "index"
    aside = kept.with_name("index.filtered")
    kept.replace(aside)
    said = await plain.ask("checkout", "--force", "--detach", "--quiet", "HEAD")
    if said.code != 0:
        aside.replace(kept)
        raise WorkspaceFailed(
            f"a filter that this repository requires is not run where agents work in a sandbox: {said.error}",
            remedy="Use `sandbox: process` for agents of this repository, or set filter.NAME.required to false.",
        )
    aside.unlink()


def _instead(fields: list[str]) -> Iterator[tuple[str, str]]:
    for field in fields:
        name, _, command = field.partition("\n")
        if not (name.startswith("filter.") and command.startswith(LFS)):
            yield name, CONFLICT if name.startswith("merge.") else ""
