"""Repositories to measure in, and the command line run in them."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

OK = frozenset({0})


def git(folder: Path, *arguments: str) -> str:
    """Run git in *folder* and return what it says."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(path: Path, files: Mapping[str, str]) -> Path:
    """Make a repository whose first commit, on main, holds *files*."""
    for name, content in files.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content, encoding="utf-8")
    git(path, "init", "-q", "-b", "main")
    git(path, "config", "user.name", "You")
    git(path, "config", "user.email", "you@example.org")
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", "begin")
    return path


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment for commands with a state directory of their own: no key, no settings of the user.

    Python may keep what it compiled, as it does for everybody; else each command would compile Kapelle again.
    """
    others = ("KAPELLE_", "ANTHROPIC_", "CLAUDE", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {**kept, "KAPELLE_HOME": str(home), **more}


def kapelle(folder: Path, env: Mapping[str, str], arguments: Sequence[str], *, codes: frozenset[int] = OK) -> str:
    """Run a command of Kapelle and return what it says.

    Raises:
        RuntimeError: it ended with none of *codes*.
    """
    done = subprocess.run(
        [sys.executable, "-m", "kapelle", *arguments], cwd=folder, env=env, check=False, capture_output=True, text=True
    )
    if done.returncode not in codes:
        raise RuntimeError(f"kapelle {arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
