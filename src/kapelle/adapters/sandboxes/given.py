"""What a sandbox that isolates files gives a process for itself: directories, files, the little of /etc that names users."""

import os
from collections.abc import Iterator
from pathlib import Path

from kapelle.adapters.sandboxes.surroundings import make_folders, temporary
from kapelle.adapters.system.ownership import agent, give
from kapelle.core.errors import HostFailed
from kapelle.core.isolation import Mount, MountKind, Place
from kapelle.core.ports import Launch

ETC = (
    *("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("ssl", "ca-certificates", "pki", "crypto-policies", "openssl"),
    *("localtime", "timezone", "mime.types", "magic", "debian_version", "os-release", "lsb-release"),
    *("resolv.conf", "hosts", "nsswitch.conf", "host.conf", "gai.conf", "protocols", "services"),
    *("java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "python3", "python3.11", "python3.12", "python3.13", "perl"),
)
"""What programs look for in /etc, and nothing with a secret in it."""
GIT_CONFIG = """\
# The repository belongs to whoever runs Kapelle, who may be another user than this one.
[safe]
\tdirectory = *
"""


def given(launch: Launch, place: Place) -> list[Mount]:
    """Make ready what a process has for itself, in the hands of its user; return how it comes to where it is looked for.

    Raises:
        HostFailed: it cannot be made, or is not to be given away.
    """
    if agent() is not None and not place.owned:
        raise HostFailed(
            f"{place.workspace} is yours, and agents that root starts in a sandbox own nothing of yours",
            remedy="Give the task a worktree or a scratch directory, start Kapelle as another user, or use `sandbox: process`.",
        )
    make_folders(place)
    own = [Mount(kind=MountKind.WRITE, path=path) for path in (temporary(place), place.home, place.workspace)]
    try:
        etc = [Mount(kind=MountKind.READ, path=f"/etc/{name}", source=path) for name, path in _etc(place).items()]
        files = list(_files(launch, place))
        for mount in (*own, *place.mounts):
            if mount.kind is MountKind.WRITE:
                give(mount.source or mount.path, agent())
    except OSError as error:
        raise HostFailed(f"{error.filename} cannot be prepared for the sandbox: {error.strerror}") from error
    return [*etc, *own, *place.mounts, *files]


def private(place: Place) -> tuple[str, ...]:
    """Return what no mount of programs may show of what belongs to *place*."""
    return (place.workspace, place.folder, place.home, *(mount.path for mount in place.mounts))


def _files(launch: Launch, place: Place) -> Iterator[Mount]:
    """Write the files of *launch* where the agent's user may read them; yield how they come to where they are looked for."""
    folder = Path(place.folder) / "given"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in launch.files:
        path = folder / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(content)
        give(str(path), agent())
        yield Mount(kind=MountKind.READ, path=str(Path(place.folder) / name), source=str(path))


def _etc(place: Place) -> dict[str, str]:
    """Write the files of /etc that name users, and what git is to believe; return where each is."""
    folder = Path(place.folder) / "etc"
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    who = agent() or os.geteuid()
    try:
        git = Path("/etc/gitconfig").read_text(encoding="utf-8")
    except OSError:
        git = ""
    files = {
        "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:{who}:{who}:agent:{place.home}:/bin/sh\n",
        "group": f"root:x:0:\nagent:x:{who}:\n",
        "gitconfig": f"{git.rstrip()}\n{GIT_CONFIG}" if git.strip() else GIT_CONFIG,
    }
    for name, text in files.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
    return {name: str(folder / name) for name in files}
