"""Finding the programs that Kapelle itself starts beside an agent: never one that an agent may have put there.

Git and bubblewrap are started in or for directories in which an agent writes what it likes. A relative entry of ``$PATH``
(``./node_modules/.bin``, or an empty one) would mean one of those.
"""

import os
import shutil
from functools import lru_cache
from pathlib import Path

SYSTEM = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin")
"""Where the system's own programs are: nobody but root writes there."""


def search_path() -> str:
    """Return ``$PATH`` without what it means somewhere else in every directory."""
    return _absolute(os.environ.get("PATH", os.defpath))


def program(name: str) -> str | None:
    """Return the program *name*, by its whole path; None when there is none on ``$PATH``."""
    return _found(name, search_path())


def system_program(name: str) -> str | None:
    """Return the program *name*, by its whole path, and the system's own where there are several."""
    entries = search_path().split(os.pathsep)
    return _found(name, os.pathsep.join(sorted(entries, key=lambda entry: entry not in SYSTEM)))


@lru_cache(maxsize=8)
def _absolute(path: str) -> str:
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if Path(entry).is_absolute())


@lru_cache(maxsize=32)
def _found(name: str, path: str) -> str | None:
    return shutil.which(name, path=path)
