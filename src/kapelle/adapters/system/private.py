"""Private directories in memory: where values lie that may not come to a disk."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kapelle.core.errors import HostFailed
from kapelle.core.hiding import Secret

SHARED_MEMORY = "/dev/shm"  # noqa: S108  # a directory of our own is made in it, and checked
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def private_place() -> Path:
    """Return a directory that only this user can look into, in memory where the system has such a place; it is made.

    Raises:
        HostFailed: what is there belongs to somebody else, or it cannot be made.
    """
    return made(private_places()[0])


def private_places() -> list[Path]:
    """Return where it may be, the best place first; an earlier leader may have been told of other places than this one."""
    return [parent / f"kapelle-{os.geteuid()}" for parent in _parents()]


def made(place: Path) -> Path:
    """Return *place*, a directory that only this user can look into.

    Raises:
        HostFailed: it cannot be made, or what is there belongs to somebody else.
    """
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError as error:
        raise HostFailed(f"the private directory {place} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        remedy = f"Remove it, or have it removed: others could read secrets there (`ls -ld {place}`)."
        raise HostFailed(f"{place} is not private to whoever runs Kapelle", remedy=remedy)
    return place


def _parents() -> Iterator[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and _is_ours(Path(runtime)):
        yield Path(runtime)
    if os.access(SHARED_MEMORY, os.W_OK):
        yield Path(SHARED_MEMORY)
    yield Path(tempfile.gettempdir())


def _is_ours(place: Path) -> bool:
    # Of somebody else's (after sudo, for example) the owner could put another in the place of ours.
    try:
        return place.is_absolute() and place.stat().st_uid == os.geteuid() and os.access(place, os.W_OK)
    except OSError:
        return False


def is_in_memory(path: Path) -> bool:
    """Say whether what is at *path* is kept in memory, as far as this system tells."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    real = os.path.realpath(path)
    mounts = [line.split(" ")[1:3] for line in lines]
    above = [(point, kind) for point, kind in mounts if real == point or real.startswith(f"{point.rstrip('/')}/")]
    return bool(above) and max(above, key=lambda found: len(found[0]))[1] in IN_MEMORY


def read_known(folder: str) -> list[Secret]:
    """Return the values in *folder*: files that are called NAME, or NAME.NUMBER where there are several.

    Raises:
        OSError: one cannot be read.
    """
    return [
        Secret(name=path.name.partition(".")[0], value=path.read_bytes().decode()) for path in sorted(Path(folder).iterdir())
    ]
