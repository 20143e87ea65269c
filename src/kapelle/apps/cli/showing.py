"""Showing a session in the person's own terminal, which is put back as it was, whatever ends what shows it."""

import os
import subprocess
import sys
import termios

from kapelle.core.terminals import Attaching

KEEP_PLACE = "\x1b7"
BACK = (
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l"  # the mouse
    "\x1b[?1004l\x1b[?2004l"  # focus, and what is pasted
    "\x1b[?1l\x1b>\x1b[>4m"  # keys
    "\x1b[m\x1b(B\x0f\x1b[r"  # colours, letters, the part that scrolls
    "\x1b[?1049l\x1b[J\x1b[?7h\x1b[?25h\x1b[0 q"  # the other screen; what lies below; the cursor
)
"""What lets a terminal show lines again. It goes back to where the cursor was kept, and what was said since is written over."""


def show(how: Attaching) -> None:
    """Show a session in the person's own terminal until that leaves it, or the session ends."""
    # Inside another tmux its own variable would keep it from starting.
    env = {name: value for name, value in os.environ.items() if name not in {"TMUX", "TMUX_PANE"}}
    given = sys.stdin.fileno()
    before = termios.tcgetattr(given)
    _write(KEEP_PLACE)
    left = False
    try:
        left = subprocess.run(how.argv, cwd=how.cwd, env=env, check=False).returncode == 0
    finally:
        termios.tcsetattr(given, termios.TCSADRAIN, before)
        if not left:
            # Whoever served it was ended, maybe with no time to tidy up.
            _write(BACK)


def _write(keys: str) -> None:
    sys.stdout.write(keys)
    sys.stdout.flush()
