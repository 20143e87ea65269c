"""Unix sockets in directories that lie deep: a socket's path may have about a hundred bytes, a directory's any number."""

import os
import socket
import tempfile
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")
"""Where Linux shows what is open, by short names."""


def listening(folder: Path, name: str, backlog: int) -> socket.socket:
    """Return a socket that listens as *name* in *folder*, which is there; one that was left there is replaced.

    Raises:
        OSError: it cannot be made.
    """
    (folder / name).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(listener, folder, name)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, folder: Path, name: str) -> None:
    if not DESCRIPTORS.exists():
        # Elsewhere by a link, in the shortest directory there is for such things.
        with tempfile.TemporaryDirectory(prefix="k", dir="/tmp") as short:  # a name of its own, gone at once
            (Path(short) / "w").symlink_to(folder)
            listener.bind(str(Path(short) / "w" / name))
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(str(DESCRIPTORS / str(handle) / name))
    finally:
        os.close(handle)
