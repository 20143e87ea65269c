"""Running git: with an environment of our own, and without trust in anything that an agent may have written.

Hooks and file-system monitors are off in every call: both would run programs that a repository names.
"""

import asyncio
import os
import shlex
import signal
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from contextlib import suppress

from kapelle.adapters.system.locks import remove_stale_lock
from kapelle.core.errors import GitFailed, ProgramMissing
from kapelle.core.frozen import frozen

SAFE = (
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    "commit.gpgsign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "core.quotepath=false",
    "advice.detachedHead=false",
    # Worktrees of other users' repositories are worked on because the operator said so.
    "safe.directory=*",
)
ERROR_LINES = 6


@frozen
class GitResult:
    """What git answered."""

    code: int
    out: bytes
    error: str

    @property
    def text(self) -> str:
        """The output as text, without the newline at its end."""
        return self.out.decode(errors="surrogateescape").rstrip("\n")

    @property
    def lines(self) -> list[str]:
        """The output's lines."""
        return [line for line in self.text.split("\n") if line]

    @property
    def fields(self) -> list[str]:
        """The output of a ``-z`` command."""
        return [part.decode(errors="surrogateescape") for part in self.out.split(b"\0") if part]

    @property
    def names(self) -> list[str]:
        """The output of a ``-z`` command, for people and for the store."""
        return [plain(part) for part in self.fields]


def plain(text: str) -> str:
    r"""Return *text* as it can be written down: what is no text in the name of a file becomes ``\xNN``."""
    return os.fsencode(text).decode(errors="backslashreplace")


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    # What the operator's shell says about git (GIT_DIR, GIT_INDEX_FILE, ...) is about another repository.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = {"GIT_CONFIG_COUNT": str(len(SAFE))}
    for index, entry in enumerate(SAFE):
        name, _, value = entry.partition("=")
        settings |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": value}
    return {**kept, **settings, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", **extra}


class Git:
    """The git program, called in one directory."""

    def __init__(self, folder: str, *, git_dir: str | None = None, env: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._env = dict(env or {})
        if git_dir is not None:
            # Said outright, so that a .git file that an agent rewrote leads nowhere.
            self._env |= {"GIT_DIR": git_dir, "GIT_WORK_TREE": folder}

    def having(self, **env: str) -> "Git":
        """Return the same with more in its environment."""
        copy = Git(self._folder)
        copy._env = {**self._env, **env}  # its own class
        return copy

    async def ask(self, *arguments: str, given: bytes | None = None) -> GitResult:
        """Run git and return what it answered, whatever that is.

        Raises:
            ProgramMissing: git is not installed.
            GitFailed: the directory is gone.
        """
        result = await self._ask(arguments, given)
        if result.code != 0 and remove_stale_lock(result.error, self._folder):
            return await self._ask(arguments, given)
        return result

    async def _ask(self, arguments: Sequence[str], given: bytes | None) -> GitResult:
        try:
            process = await self._start(arguments, takes_input=given is not None)
        except FileNotFoundError as error:
            if os.path.isdir(self._folder):  # noqa: PTH112  # a str is at hand
                raise ProgramMissing("git is not installed", remedy="Install git 2.38 or newer.") from error
            raise GitFailed(f"the directory {self._folder} is gone") from error
        try:
            out, err = await process.communicate(given)
        except BaseException:
            await _end(process)
            raise
        return GitResult(code=process.returncode or 0, out=out, error=err.decode(errors="replace").strip())

    async def _start(self, arguments: Sequence[str], *, takes_input: bool) -> asyncio.subprocess.Process:
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                "git",
                *arguments,
                cwd=self._folder,
                env=_environment(self._env),
                stdin=PIPE if takes_input else asyncio.subprocess.DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                # A group of its own: Ctrl-C is for Kapelle, which ends git and what git has started when it must.
                start_new_session=True,
            )
        )
        try:
            # Broken off while it starts, asyncio would end git alone and wait for ever for what git has started.
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await _end(await starting)
            raise

    async def do(self, *arguments: str, given: bytes | None = None) -> GitResult:
        """Run git and return what it answered.

        Raises:
            GitFailed: it answered with an error.
        """
        result = await self.ask(*arguments, given=given)
        if result.code != 0:
            raise failed(arguments, result)
        return result


async def _end(process: asyncio.subprocess.Process) -> None:
    """End git and everything that it has started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def failed(arguments: Sequence[str], result: GitResult) -> GitFailed:
    """Return the error for a git command that answered with one."""
    said = "\n".join((result.error or result.text).splitlines()[:ERROR_LINES])
    return GitFailed(plain(f"`git {shlex.join(arguments)}` ended with {result.code}: {said}"))


class Locks:
    """One lock per repository: git itself fails when worktrees are added at the same time."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}

    def of(self, repository: str) -> asyncio.Lock:
        """Return the lock of *repository*."""
        return self._locks.setdefault(repository, asyncio.Lock())
