"""The machine as `kapelle doctor` looks at it. Nothing here changes anything but ``remove_lock``."""

import re
import socket
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from kapelle.adapters.system.locks import LEFT_BEHIND, is_stale

LONGEST = 10.0
"""Seconds that a program may take to say its version."""
NUMBER = re.compile(r"\d+(?:\.\d+)+")


class LocalMachine:
    """See ``apps.machine.Machine``."""

    def version_of(self, program: str) -> str | None:
        try:
            said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=LONGEST, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = NUMBER.search(said.stdout)
        return found.group() if said.returncode == 0 and found is not None else None

    def port_is_free(self, port: int) -> bool:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True

    def stale_locks(self, git_dir: str) -> Sequence[str]:
        folder = Path(git_dir)
        found = [path for glob in LEFT_BEHIND for path in folder.glob(glob)]
        return sorted(str(path) for path in found if is_stale(path, folder))

    def remove_lock(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def store_problems(self, path: str) -> Sequence[str]:
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=LONGEST)) as store:
                said = [str(row[0]) for row in store.execute("PRAGMA quick_check(20)")]
        except sqlite3.Error as error:
            return [str(error)]
        return [] if said == ["ok"] else said

    def writable(self, folder: str) -> bool:
        place = Path(folder)
        probe = place / ".doctor"
        with suppress(OSError):
            probe.write_bytes(b"")
            probe.unlink()
            return True
        return False
