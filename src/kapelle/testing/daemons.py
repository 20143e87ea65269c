"""What the container runtimes of tests have in common: a service that is started for them, and all of it gone afterwards."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 60.0
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
"""Where their programs are: not everybody's path has them."""


def missing(programs: Sequence[str]) -> list[str]:
    """Return those of *programs* that are not there."""
    return [name for name in programs if shutil.which(name, path=PATH) is None]


@contextmanager
def service(argv: Sequence[str], folder: Path, socket: Path, env: Mapping[str, str] = os.environ) -> Generator[None]:
    """Start a service that is to answer at *socket*; end it afterwards, and unmount and remove all that is in *folder*."""
    told = folder / "said.txt"
    with told.open("wb") as said:
        # Tests that are killed clear nothing away: at least nothing is left running.
        with_us = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        started = subprocess.Popen(
            [*with_us, *argv],
            # Podman leaves an empty file there for each container that was out of memory.
            cwd=folder,
            env={**env, "PATH": PATH},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        _wait_for(socket, started, told)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        started.wait(timeout=PATIENCE)
        _unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(socket: Path, started: "subprocess.Popen[bytes]", told: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not socket.exists():
        assert started.poll() is None, told.read_text(encoding="utf-8")
        assert time.monotonic() < end, f"{started.args} does not start"
        time.sleep(0.02)


def _unmount(folder: Path) -> None:
    """Unmount what is mounted below *folder*, the inner first."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    for line in reversed(lines):
        place = line.split(" ")[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
