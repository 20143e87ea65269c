"""Running git: with an environment of our own, and without trust in anything that an agent may have written.

Hooks and file-system monitors are off in every call: both would run programs that a repository names.
"""

import asyncio
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

from kapelle.adapters.system.locks import PATIENCE, out_of_the_way
from kapelle.adapters.system.processes import end_with_group, exit_of
from kapelle.adapters.system.trusted import program, search_path
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
INSTALL = "Install git 2.38 or newer."
AGAIN = 3
"""How often a command is tried again that met a lock: one may be behind the other."""


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


def _safely() -> dict[str, str]:
    settings = {"GIT_CONFIG_COUNT": str(len(SAFE))}
    for index, entry in enumerate(SAFE):
        name, _, value = entry.partition("=")
        settings |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": value}
    return {**settings, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}


SAFELY = _safely()


def _set(settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    if not settings:
        return {}
    found = {"GIT_CONFIG_COUNT": str(len(SAFE) + len(settings))}
    for index, (name, value) in enumerate(settings, len(SAFE)):
        found |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": value}
    return found


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    # What the operator's shell says about git (GIT_DIR, GIT_INDEX_FILE, ...) is about another repository.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "PATH": search_path(), **SAFELY, **extra}


def _scratch() -> BinaryIO:
    """Return a file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("kapelle-git"), "w+b")
    return tempfile.TemporaryFile()  # whoever asked closes it


class Git:
    """The git program, called in one directory."""

    def __init__(self, folder: str, *, git_dir: str | None = None, env: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._env = dict(env or {})
        self._settings: tuple[tuple[str, str], ...] = ()
        if git_dir is not None:
            # Said outright, so that a .git file that an agent rewrote leads nowhere.
            self._env |= {"GIT_DIR": git_dir, "GIT_WORK_TREE": folder}

    def having(self, **env: str) -> "Git":
        """Return the same with more in its environment."""
        copy = Git(self._folder)
        copy._env = {**self._env, **env}  # its own class
        copy._settings = self._settings  # its own class
        return copy

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """What was set."""
        return self._settings

    def set(self, settings: Iterable[tuple[str, str]]) -> "Git":
        """Return the same with other settings than the repository, the operator and the system say."""
        copy = Git(self._folder, env=self._env)
        copy._settings = (*self._settings, *settings)
        return copy

    async def ask(self, *arguments: str, given: bytes | None = None, patience: float = PATIENCE) -> GitResult:
        """Run git and return what it answered, whatever that is. A lock that is in its way is waited for, *patience* seconds.

        Raises:
            ProgramMissing: git is not installed.
            GitFailed: the directory is gone.
        """
        result = await self._ask(arguments, given)
        for _ in range(AGAIN):
            if result.code == 0 or not await out_of_the_way(result.error, self._folder, patience=patience):
                break
            result = await self._ask(arguments, given)
        return result

    async def _ask(self, arguments: Sequence[str], given: bytes | None) -> GitResult:
        # By files, and not by pipes: nothing needs to be read while git runs, so its end is all there is to wait for.
        with _scratch() as source, _scratch() as out, _scratch() as err:
            if given is not None:
                source.write(given)
                source.seek(0)
            process = self._start(arguments, source, out, err)
            try:
                code = await exit_of(process)
            finally:
                end_with_group(process)
            out.seek(0)
            err.seek(0)
            return GitResult(code=code, out=out.read(), error=err.read().decode(errors="replace").strip())

    def _start(self, arguments: Sequence[str], source: BinaryIO, out: BinaryIO, err: BinaryIO) -> subprocess.Popen[bytes]:
        git = program("git")
        if git is None:
            raise ProgramMissing("git is not installed", remedy=INSTALL)
        try:
            return subprocess.Popen(
                [git, *arguments],
                cwd=self._folder,
                env=_environment({**_set(self._settings), **self._env}),
                stdin=source,
                stdout=out,
                stderr=err,
                # A group of its own: Ctrl-C is for Kapelle, which ends git and what git has started when it must.
                start_new_session=True,
            )
        except FileNotFoundError as error:
            if os.path.isdir(self._folder):  # noqa: PTH112  # a str is at hand
                raise ProgramMissing("git is not installed", remedy=INSTALL) from error
            raise GitFailed(f"the directory {self._folder} is gone") from error

    async def do(self, *arguments: str, given: bytes | None = None) -> GitResult:
        """Run git and return what it answered.

        Raises:
            GitFailed: it answered with an error.
        """
        result = await self.ask(*arguments, given=given)
        if result.code != 0:
            raise failed(arguments, result)
        return result


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
