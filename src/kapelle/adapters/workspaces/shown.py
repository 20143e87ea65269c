"""What those inside a sandbox see of the repository's own directory: enough to work with, and nothing that opens other doors.

A remote's address may hold a token, a header of a CI service does, and what git wrote down of a ``git pull URL`` may, too.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from kapelle.adapters.system.git import Git
from kapelle.core.isolation import Mount, MountKind

CONFIG = "kapelle-config"
"""The repository's settings as those inside see them, in the worktree's own git directory."""
HIDDEN = ("worktrees", "modules", "logs", "FETCH_HEAD", "config.worktree")
"""Other workspaces, git directories of the operator's submodules, and what was done with remotes."""
LEFT_OUT = re.compile(
    r"^(credential|include|includeif|sendemail|url)\.|extraheader$|cookiefile$|proxy$|(token|password|passwd|secret|apikey|pass)$"
)
"""Settings that hold credentials or lead to them: git-credential(1), git-config(1), and whatever is called so."""
USER = re.compile(r"(?<=://)[^/@\s]+@")
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\b": "\\b"}


async def shown_of(common: Path, git_dir: Path) -> list[Mount]:
    """Return what hides and replaces parts of *common*, the repository's git directory, for the worktree of *git_dir*.

    Raises:
        OSError: the settings cannot be written.
        GitFailed: the settings cannot be read.
    """
    hidden = [Mount(kind=MountKind.HIDE, path=str(common / name)) for name in HIDDEN if (common / name).exists()]
    settings = common / "config"
    if not settings.exists():
        return hidden
    said = await Git(str(common)).do("config", "--file", str(settings), "--no-includes", "--null", "--list")
    fresh = git_dir / f"{CONFIG}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "w", encoding="utf-8") as stream:
        stream.write("".join(_written(said.out.decode(errors="replace").split("\0"))))
    fresh.chmod(0o644)
    fresh.replace(git_dir / CONFIG)
    return [*hidden, Mount(kind=MountKind.READ, path=str(settings), source=str(git_dir / CONFIG))]


def _written(entries: list[str]) -> Iterator[str]:
    """Yield the lines of a file of settings; see git-config(1) for how it is written."""
    for entry in filter(None, entries):
        name, given, value = entry.partition("\n")
        if LEFT_OUT.search(name.lower()) or "@" in name:
            continue
        section, _, rest = name.partition(".")
        inner, _, key = rest.rpartition(".")
        yield f"[{section} {_quoted(inner)}]\n" if inner else f"[{section}]\n"
        yield f"\t{key} = {_quoted(USER.sub('', value))}\n" if given else f"\t{key}\n"


def _quoted(text: str) -> str:
    return '"' + "".join(ESCAPES.get(letter, letter) for letter in text) + '"'
