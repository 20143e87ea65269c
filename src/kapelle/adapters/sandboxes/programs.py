"""Where programs live that are not the system's own: what a sandbox shows of the machine, and nothing beside it.

A directory of programs rarely stands alone: what it starts lies in ``lib`` beside it, and a virtual environment of Python needs
the Python that it was made from. A home directory is never shown for the programs in its ``bin``.
"""

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""What every sandbox shows, where the system has it."""
BESIDE = ("lib", "lib64", "libexec", "pyvenv.cfg")
OURS = Path(__file__).parents[2]
"""Kapelle itself: agents of ``program: python`` are run by a part of it."""


@cache
def needed(path: str, program: str) -> tuple[str, ...]:
    """Return the directories that hold the programs of *path* (as in ``$PATH``) and *program*, each once, outer ones first."""
    folders = [entry for entry in path.split(os.pathsep) if Path(entry).is_absolute()]
    if Path(program).is_absolute():
        folders += [str(Path(program).parent), str(Path(program).resolve().parent)]
    found = {root for folder in folders if Path(folder).is_dir() for root in _roots(Path(folder))}
    if Path(program) == Path(sys.executable):
        found.add(str(OURS))
    outer = [root for root in sorted(found) if not any(is_below(root, other) for other in found if other != root)]
    return tuple(root for root in outer if not any(is_below(root, system) for system in SYSTEM))


def is_below(path: str, other: str) -> bool:
    """Say whether *path* is *other* or in it."""
    return path == other or path.startswith(f"{other.rstrip('/')}/")


def _roots(folder: Path) -> Iterator[str]:
    parent = folder.parent
    homes = {Path.home(), Path.home() / ".local", Path("/")}
    if parent not in homes and folder.name == "shims" and (parent / "versions").is_dir():
        # pyenv, rbenv, nodenv, asdf: a shim starts what is in a version.
        yield str(parent)
        return
    if parent in homes or folder.name not in {"bin", "sbin"} or not any((parent / name).exists() for name in BESIDE):
        yield str(folder)
        return
    yield str(parent)
    made_from = _made_from(parent / "pyvenv.cfg")
    if made_from is not None and not is_below(str(made_from), str(parent)):
        yield from _roots(made_from)


def _made_from(config: Path) -> Path | None:
    """Return the directory of the Python that a virtual environment was made from."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == "home":
            return Path(value.strip())
    return None
