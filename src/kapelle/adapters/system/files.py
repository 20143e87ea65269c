"""How many files this process may have open: as many as it can get while it leads, and never all of them for one agent."""

import resource
import sys
from collections.abc import Generator
from contextlib import contextmanager

MOST = 1 << 16
"""More would be of no use, and some programs look at each number that a file could have."""
MOST_MACOS = 10_240
"""OPEN_MAX there: more are refused, whatever the hard limit says."""
SHARES = 32
"""So many parts of all files nobody alone may have more than one of."""
LEAST = 8

_given: list[int] = []
"""The soft limits that there were before they were raised, the first of them first."""


@contextmanager
def many_files() -> Generator[None]:
    """Raise the soft limit of open files as far as it may be; afterwards it is as it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _given.append(soft)
    try:
        _set(max(soft, _highest(hard)) if soft != resource.RLIM_INFINITY else soft)
        yield
    finally:
        _set(_given.pop())


def soft_limit() -> int | None:
    """Return the soft limit that what is started is to have, when it is another than this process has itself."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _given[0] if _given and _given[0] != soft else None


def share(most: int) -> int:
    """Return how many files one agent may have this process hold open for one purpose: *most*, or fewer where there are few."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if soft == resource.RLIM_INFINITY else max(min(most, soft // SHARES), LEAST)


def _highest(hard: int) -> int:
    most = MOST_MACOS if sys.platform == "darwin" else MOST
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def _set(soft: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
