"""Running another command in this terminal, as a person would, and coming back."""

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from kapelle.apps.cli.common import INTERRUPTED


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
