"""A real Podman for tests: a service of its own, with a store of its own, all of which is gone when the tests are over.

It needs no registry, no systemd and no settings of the machine. It installs nothing.
"""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from kapelle.core.errors import ProgramMissing

PROGRAMS = ("podman", "runc", "conmon")
PATIENCE = 60.0
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
"""Where those programs are: not everybody's path has them."""
SETTINGS = """\
[containers]
default_ulimits = ["nofile=FILES:FILES", "nproc=PROCESSES:PROCESSES"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""What a machine without systemd needs; ``crun`` refuses machines with cgroups of both versions, so it is runc."""


def missing_programs() -> list[str]:
    """Return which programs are not there that it takes."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def _settings() -> str:
    # More than one has oneself cannot be given where few rights are to be had.
    files, processes = (resource.getrlimit(each)[1] for each in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    found = SETTINGS
    for name, hard, most in (("FILES", files, 20_000), ("PROCESSES", processes, 30_000)):
        found = found.replace(name, str(most if hard == resource.RLIM_INFINITY else min(hard, most)))
    return found


@contextmanager
def podman_service() -> Generator[str]:
    """Start Podman's service, which keeps everything in a folder of its own; yield its address for ``CONTAINER_HOST``.

    At the end all its containers are ended and removed, and so is what it has mounted.

    Raises:
        ProgramMissing: a program that it needs is not there.
    """
    if gone := missing_programs():
        raise ProgramMissing(f"{' and '.join(gone)} cannot be found", remedy="apt-get install podman runc")
    # A socket's path can be a hundred bytes long, what Podman has for the run fifty; and folders of tests are deep. Nor is
    # it in one of those because of what Podman mounts in it: who clears them away would stumble over that.
    folder = Path(tempfile.mkdtemp(prefix="kapelle-podman-", dir="/tmp"))
    settings, socket = folder / "containers.conf", folder / "podman.sock"
    settings.write_text(_settings(), encoding="utf-8")
    podman = ["podman", "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--runtime", "runc"]
    podman += ["--storage-driver", "overlay"]
    env = {**os.environ, "CONTAINERS_CONF": str(settings), "PATH": PATH}
    with (folder / "said.txt").open("wb") as said:
        # Tests that are killed clear nothing away: at least nothing is left running.
        with_us = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        service = subprocess.Popen(
            [*with_us, *podman, "system", "service", "--time", "0", f"unix://{socket}"],
            # What it starts leaves an empty file there for each container that was out of memory.
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        _wait_for(socket, service, folder / "said.txt")
        yield f"unix://{socket}"
    finally:
        subprocess.run([*podman, "rm", "--all", "--force", "--time", "0"], env=env, check=False, capture_output=True)
        with suppress(ProcessLookupError):
            os.killpg(service.pid, signal.SIGTERM)
        service.wait(timeout=PATIENCE)
        _unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(socket: Path, service: "subprocess.Popen[bytes]", said: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not socket.exists():
        assert service.poll() is None, said.read_text(encoding="utf-8")
        assert time.monotonic() < end, "Podman's service does not start"
        time.sleep(0.02)


def _unmount(folder: Path) -> None:
    """Unmount what is mounted below *folder*, the inner first."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    for line in reversed(lines):
        place = line.split(" ")[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
