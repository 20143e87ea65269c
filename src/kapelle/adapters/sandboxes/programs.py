"""Where programs live that are not the system's own: what a sandbox shows of the machine, and nothing beside it.

A directory of programs rarely stands alone: what it starts lies in ``lib`` beside it, and a virtual environment of Python needs
the Python that it was made from. A home directory is never shown for the programs in its ``bin``.
"""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""What every sandbox shows, where the system has it."""
BESIDE = ("lib", "lib64", "libexec", "pyvenv.cfg")
OURS = Path(__file__).parents[2]
"""Kapelle itself: agents of ``program: python`` are run by a part of it."""


@lru_cache(maxsize=256)
def needed(path: str, programs: tuple[str, ...], private: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the directories that hold the programs of *path* (as in ``$PATH``) and *programs*, each once, outer ones first.

    None of them holds anything of *private*: what would is narrowed to the directory of the programs themselves, and where that
    holds something of it too, it is left out.
    """
    folders = [entry for entry in path.split(os.pathsep) if Path(entry).is_absolute()]
    for program in programs:
        if Path(program).is_absolute():
            folders += [str(Path(program).parent), str(Path(program).resolve().parent)]
    kept_back = {str(Path.home()), *private}
    found: set[str] = set()
    for folder in folders:
        if _is_directory(folder):
            found |= {folder if _shows(root, kept_back) else root for root in _roots(Path(folder))}
    if programs and Path(programs[0]) == Path(sys.executable):
        found.add(str(OURS))
    shown = {root for root in found if not _shows(root, kept_back)}
    outer = [root for root in sorted(shown) if not any(is_below(root, other) for other in shown if other != root)]
    return tuple(root for root in outer if not any(is_below(root, system) for system in SYSTEM))


def _is_directory(path: str) -> bool:
    """Say whether *path* is a directory, as far as can be seen: a PATH may name what is somebody else's."""
    with suppress(OSError):
        return Path(path).is_dir()
    return False


def _shows(root: str, private: Collection[str]) -> bool:
    """Say whether whoever sees *root* sees anything of *private*, under the name that it has or the one that it really has."""
    real = os.path.realpath(root)
    return any(is_below(os.path.realpath(each), real) or is_below(each, root) for each in private)


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
