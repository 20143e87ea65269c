"""The command line in a terminal of its own, for tests of what a person sees there."""

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Generator
from contextlib import contextmanager, suppress

from kapelle.testing.places import Place


@contextmanager
def terminal(place: Place, *arguments: str, width: int = 60) -> "Generator[tuple[int, subprocess.Popen[bytes]]]":
    """Run a command in a terminal of its own; yield our end of it, and the process."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, width))
    with subprocess.Popen(
        [sys.executable, "-m", "kapelle", *arguments],
        cwd=place.repository,
        env={**place.environment, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        try:
            yield ours, process
        finally:
            process.kill()
            os.close(theirs)
            os.close(ours)


def read(ours: int, until: str) -> str:
    """Return what the terminal was given until *until* was in it, or all of it."""
    seen = ""
    with suppress(OSError):
        while until not in seen:
            seen += os.read(ours, 65536).decode(errors="replace")
    return seen
