"""A real Docker for tests: a ``dockerd`` of its own, with a store of its own, all of which is gone when the tests are over.

It needs root; no registry, no systemd, no bridge, no rules of a firewall, no settings of the machine. It installs nothing.
"""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from kapelle.adapters.sandboxes.container.runner import Api
from kapelle.core.errors import ProgramMissing
from kapelle.testing.daemons import missing, service

PROGRAMS = ("dockerd", "containerd", "runc")
MADE = ("/etc/docker/key.json", "/etc/docker", "/run/docker/plugins", "/run/docker")
"""What a Docker makes in the system whatever it is told; the outer after the inner."""
CGROUPS = Path("/sys/fs/cgroup")


def missing_programs() -> list[str]:
    """Return which programs are not there that it takes."""
    return missing(PROGRAMS)


@contextmanager
def docker_service() -> Generator[str]:
    """Start a Docker, which keeps everything in a folder of its own; yield its address for ``DOCKER_HOST``.

    At the end all its containers are ended and removed, and so is what it has mounted.

    Raises:
        ProgramMissing: a program that it needs is not there.
    """
    if gone := missing_programs():
        raise ProgramMissing(f"{' and '.join(gone)} cannot be found", remedy="apt-get install docker.io")
    # For the same reasons as Podman's.
    folder = Path(tempfile.mkdtemp(prefix="kapelle-docker-", dir="/tmp"))
    socket, settings = folder / "docker.sock", folder / "daemon.json"
    settings.write_text("{}", encoding="utf-8")
    there = {path for path in MADE if Path(path).exists()}
    with _cleared(there, folder.name), service(_argv(folder, socket, settings), folder, socket):
        try:
            yield f"unix://{socket}"
        finally:
            _remove_containers(Api(str(socket)))


def _argv(folder: Path, socket: Path, settings: Path) -> list[str]:
    options = {
        "config-file": settings,
        "data-root": folder / "data",
        "exec-root": folder / "run",
        "pidfile": folder / "pid",
        "host": f"unix://{socket}",
        "cgroup-parent": f"/{folder.name}",
        "bridge": "none",
    }
    # Containers of Kapelle have no network or that of the machine: nothing of it is changed.
    without = ("iptables", "ip6tables", "ip-forward", "ip-masq", "userland-proxy")
    return ["dockerd", *(f"--{name}={value}" for name, value in options.items()), *(f"--{name}=false" for name in without)]


def _remove_containers(api: Api) -> None:
    for each in api.ask("GET", "/containers/json?all=1")[1]:
        api.ask("DELETE", f"/containers/{each['Id']}?force=1&v=1")


@contextmanager
def _cleared(there: set[str], group: str) -> Generator[None]:
    """Remove what only this Docker has made in the system and in the kernel, and leaves there."""
    yield
    for path in (Path(each) for each in MADE if each not in there):
        with suppress(OSError):
            # Not while another one works there.
            path.unlink() if path.is_file() else path.rmdir()
    for path in (CGROUPS / group, *CGROUPS.glob(f"*/{group}")):
        with suppress(OSError):
            path.rmdir()
