"""A real Podman for tests: a service of its own, with a store of its own, all of which is gone when the tests are over.

It needs no registry, no systemd and no settings of the machine. It installs nothing.
"""

import os
import resource
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from kapelle.core.errors import ProgramMissing
from kapelle.testing.daemons import PATH, missing, service

PROGRAMS = ("podman", "runc", "conmon")
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
    return missing(PROGRAMS)


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
    with service([*podman, "system", "service", "--time", "0", f"unix://{socket}"], folder, socket, env):
        try:
            yield f"unix://{socket}"
        finally:
            subprocess.run([*podman, "rm", "--all", "--force", "--time", "0"], env=env, check=False, capture_output=True)
