"""A terminal of a person's own, for tests: tmux, whose screen can be read as text."""

import os
import signal
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

PATIENCE = 60.0
"""Seconds that something may take to be on the screen."""


class Window:
    """A command on a screen of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def do(self, *arguments: str) -> str:
        """Run a command of tmux and return what it says."""
        done = subprocess.run(
            ["tmux", "-S", "window", *arguments], cwd=self._folder, check=False, capture_output=True, text=True
        )
        return done.stdout

    def text(self) -> str:
        """Return what is on the screen, without what is blank at the ends of its lines and below them."""
        lines = self.do("capture-pane", "-p", "-t", "window").splitlines()
        return "\n".join(line.rstrip() for line in lines).rstrip()

    def ended(self) -> str:
        """Wait until the command has ended; return what is on the screen then.

        Raises:
            AssertionError: it never does.
        """
        server, pid = (int(number) for number in self.do("display-message", "-p", "#{pid} #{pane_pid}").split())
        deadline = time.monotonic() + PATIENCE
        while not _over(pid):
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not end:\n{self.text()}")
            time.sleep(0.05)
        # tmux 3.3 may miss the end of a child on a busy machine, and leave it unburied: a second word makes it look.
        os.kill(server, signal.SIGCHLD)
        return self.until("Pane is dead")

    def keys(self, *keys: str) -> None:
        """Press keys, as tmux names them; a text is typed."""
        self.do("send-keys", "-t", "window", *keys)

    def type(self, text: str) -> None:
        """Type *text*, and Enter when it is on the screen."""
        self.keys("-l", text)
        self.until(text[-20:])
        self.keys("Enter")

    def until(self, *texts: str) -> str:
        """Wait until all *texts* are on the screen; return what is.

        Raises:
            AssertionError: they never are.
        """
        deadline = time.monotonic() + PATIENCE
        while not all(text in (seen := self.text()) for text in texts):
            if time.monotonic() > deadline:
                raise AssertionError(f"{texts} are not on the screen:\n{seen}")
            # A screen tells nobody when it changes.
            time.sleep(0.05)
        return seen


def _over(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def window(
    folder: Path, *argv: str, cwd: Path, env: Mapping[str, str], width: int = 100, height: int = 30
) -> Generator[Window]:
    """Run a command on a screen of its own, which stays when the command has ended; its socket is in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    size = ["-x", str(width), "-y", str(height)]
    begin = ["tmux", "-S", "window", "-f", "/dev/null", "new-session", "-d", "-s", "window", *size, "-c", str(cwd)]
    keep = [";", "set-option", "-g", "remain-on-exit", "on", ";", "set-option", "-g", "status", "off"]
    subprocess.run([*begin, *argv, *keep], cwd=folder, env={**env, "TERM": "xterm-256color"}, check=True)
    shown = Window(folder)
    try:
        yield shown
    finally:
        shown.do("kill-server")
