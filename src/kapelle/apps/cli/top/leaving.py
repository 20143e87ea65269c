"""Leaving the screen: for another command in this terminal, to come back from it; and for good."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kapelle.apps.cli.common import INTERRUPTED
from kapelle.apps.cli.output import err
from kapelle.core.plain_text import counted

UNKNOWN = 1
"""The exit code of whoever leaves before what was asked for had an answer."""


def run_command(*arguments: str, folder: Path | None) -> int:
    """Run `kapelle` with *arguments* until it ends; Ctrl-C is for it alone. What it says of an error stays until Enter."""
    where = ("--repository", str(folder)) if folder is not None else ()

    def leave_it(_signal: int, _frame: FrameType | None) -> None:
        # Whoever ignored it would have its child ignore it, too.
        return

    before = signal.signal(signal.SIGINT, leave_it)
    try:
        code = subprocess.run([sys.executable, "-m", "kapelle", *arguments, *where], check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code not in {0, INTERRUPTED}:
        input("Enter goes back. ")
    return code


def end_at_once(undone: int) -> NoReturn:
    """End this process though threads of it are at work; so many things that were asked for have no answer.

    Python itself would wait for a thread that waits for the store: for a minute, where the store is held. Nothing is lost
    by that: what a transaction has not committed was never promised.
    """
    if undone:
        have = "has" if undone == 1 else "have"
        said = f"{counted(undone, 'thing')} that you asked for {have} no answer yet, and may never be done: kapelle status"
        err().print(said, style="yellow")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(UNKNOWN if undone else 0)
