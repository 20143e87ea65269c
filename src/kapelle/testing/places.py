"""A repository, a state directory and the command line on both: for tests of what a person sees. Everything in it is real."""

import atexit
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil

from kapelle.core.frozen import frozen
from kapelle.testing.prepared import PreparedCommands

PREPARED = PreparedCommands()
atexit.register(PREPARED.close)
FROM_THE_START = ("PYTHON", "LANG", "LC_")
"""How the names of settings begin that are looked at when Python starts."""


def git(repository: Path, *arguments: str) -> str:
    """Run git in *repository* and return what it says.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    done = subprocess.run(["git", "-C", str(repository), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_repository(folder: Path) -> Path:
    """Make *folder* a git repository whose first commit, on main, holds all that is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "You")
    git(folder, "config", "user.email", "you@example.org")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "begin")
    return folder


@frozen
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, read as JSON."""
        return json.loads(self.out)


@frozen
class Place:
    """A repository, a state directory of its own, and the command line on both."""

    repository: Path
    home: Path
    sandbox: str = ""
    """What its agents and checks run in; when empty, whatever is chosen."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands: no key, no login, no setting but the state directory."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "CONTAINER_HOST", "DOCKER_HOST") if name in os.environ}
        chosen = {"KAPELLE_SANDBOX": self.sandbox} if self.sandbox else {}
        return {**kept, **chosen, "KAPELLE_HOME": str(self.home), "HOME": str(self.home.parent)}

    def run(
        self,
        *arguments: str | bytes,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        seconds: int | None = None,
    ) -> Said:
        """Run a command to its end, in a process of its own, which may compute for so many *seconds*.

        Those who say with *env* how Python is to start get a new one, whatever it computes.
        """
        own = {**self.environment, **(env or {})}
        if not any(name.startswith(FROM_THE_START) for name in env or ()):
            said = PREPARED.run(arguments, cwd=cwd or self.repository, env=own, seconds=seconds)
            return Said(code=said.code, out=said.out.decode(), err=said.err.decode())
        done = subprocess.run(
            [sys.executable, "-m", "kapelle", *arguments],
            cwd=cwd or self.repository,
            env=own,
            check=False,
            capture_output=True,
            text=True,
        )
        return Said(code=done.returncode, out=done.stdout, err=done.stderr)

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start a command and leave it running; what it says comes by one pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", "kapelle", *arguments],
            cwd=self.repository,
            env={**self.environment, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def write(self, name: str, text: str) -> Path:
        """Write a file beside the repository; *text* may be indented."""
        path = self.repository.parent / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def git(self, *arguments: str) -> str:
        """Run git in the repository and return what it says."""
        return git(self.repository, *arguments)

    def runs(self) -> int:
        """Return how many runs were ever accepted."""
        if not (self.home / "store.db").exists():
            return 0
        with closing(sqlite3.connect(self.home / "store.db")) as store:
            return int(store.execute("select count(*) from runs").fetchone()[0])

    def asked(self) -> bool:
        """Say whether a run is in the store: accepted, or asked for and killed before it was."""
        if not (self.home / "store.db").exists():
            return False
        with closing(sqlite3.connect(self.home / "store.db")) as store:
            tables = store.execute("select count(*) from sqlite_master where name = 'requests'").fetchone()[0]
            return bool(tables and store.execute("select count(*) from requests where kind = 'Submit'").fetchone()[0])

    def processes(self) -> list[str]:
        """Return the command lines of whatever still runs on behalf of this state directory."""
        found: list[str] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("KAPELLE_WORKSPACE", "").startswith(str(self.home)):
                    found.append(" ".join(process.cmdline())[:200])
        return found


def until(process: "subprocess.Popen[str]", text: str) -> str:
    """Read what *process* says until *text* is in a line; return all of it.

    Raises:
        AssertionError: it ended without saying so.
    """
    said = ""
    for line in process.stdout or ():
        said += line
        if text in line:
            return said
    raise AssertionError(f"it ended without saying {text!r}:\n{said}")
