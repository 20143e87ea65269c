"""What git is not to run in a workspace in which an agent works inside a sandbox: programs that the repository's users set up.

A filter, a merge driver or a converter is the operator's command, but git starts it in the workspace: ``python3 -m nbstripout``
would load what the agent has put there, outside of its sandbox. So none is started. A filter that is ``required`` makes git
refuse the file, as it does wherever such a filter is missing; files of others are committed as they are; what a merge driver
would have merged is a conflict, for the agent to resolve (gitattributes(5)).

Git LFS alone runs: what it does depends on no program in the workspace (git-lfs-config(5): what ``.lfsconfig`` may say).
"""

from collections.abc import Iterator

from kapelle.adapters.system.git import Git
from kapelle.core.errors import GitFailed

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


def _instead(fields: list[str]) -> Iterator[tuple[str, str]]:
    for field in fields:
        name, _, command = field.partition("\n")
        if not (name.startswith("filter.") and command.startswith(LFS)):
            yield name, CONFLICT if name.startswith("merge.") else ""
