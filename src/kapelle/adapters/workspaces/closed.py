"""Git in a workspace in which something may be closed to its own owner, as an agent, or a test of the agent's, leaves it.

Git passes by a directory that it may not look into, and only says so: what is in there would be in no commit, and go with its
workspace. So whatever git stumbles over is opened, and then git is asked once more.
"""

from asyncio import to_thread

from kapelle.adapters.system.git import Git, GitResult, failed
from kapelle.adapters.system.walking import open_up
from kapelle.core.errors import WorkspaceFailed

STUMBLED = "Permission denied"
"""What git says of it, in no language but the one that it is asked to speak."""


async def everywhere(git: Git, path: str, *arguments: str) -> GitResult:
    """Run git, which is to look at all of the workspace at *path*, and return what it answered.

    Nobody may be at work there.

    Raises:
        GitFailed: it answered with an error.
        WorkspaceFailed: something is closed, and cannot be opened.
    """
    result = await git.ask(*arguments)
    if STUMBLED in result.error:
        try:
            opened = await to_thread(open_up, path)
        except OSError as error:
            raise WorkspaceFailed(f"{path} cannot be looked through: {error.strerror}") from error
        if opened:
            result = await git.ask(*arguments)
    if result.code != 0:
        raise failed(arguments, result)
    return result
