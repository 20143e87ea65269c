"""Mounts as a container runtime takes them: a set, made from the outside in, each path once."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from kapelle.adapters.sandboxes.programs import is_below
from kapelle.core.errors import HostFailed
from kapelle.core.isolation import Mount, MountKind

APART = (",", '"', "\n")
"""What a path may not hold where a runtime takes mounts apart as a line of text (Podman does so with Docker's API)."""


def seen(mounts: Sequence[Mount]) -> list[Mount]:
    """Return those of *mounts* of which anything is seen: the later are on top of the earlier."""
    return [
        mount
        for number, mount in enumerate(mounts)
        if not any(is_below(mount.path, later.path) for later in mounts[number + 1 :])
    ]


def as_docker(mounts: Sequence[Mount], folder: Path) -> tuple[list[dict[str, object]], list[str]]:
    """Return *mounts* as the ``Mounts`` and ``Binds`` of a ``HostConfig``; in *folder* is made what stands for hidden paths.

    Raises:
        HostFailed: a path cannot be given to a container runtime, or the folder cannot be made.
    """
    structured: list[dict[str, object]] = []
    lines: list[str] = []
    there = seen(mounts)
    for mount in there:
        source = mount.source or mount.path
        if mount.kind is MountKind.HIDE:
            # Called after what it stands for: there may be more or fewer of them another time.
            name = hashlib.sha256(f"{mount.path}\0{Path(source).is_dir()}".encode()).hexdigest()[:16]
            source = str(_empty(folder / name, mount, there))
        read_only = mount.kind is not MountKind.WRITE
        if not any(mark in source + mount.path for mark in APART):
            entry = {"Type": "bind", "Source": source, "Target": mount.path, "ReadOnly": read_only}
            structured.append({**entry, "BindOptions": {"Propagation": "rprivate"}})
        elif ":" not in source + mount.path and "\n" not in source + mount.path:
            lines.append(f"{source}:{mount.path}:{'ro' if read_only else 'rw'},rprivate")
        else:
            remedy = "Move it, or use `sandbox: bubblewrap`."
            raise HostFailed(f"{mount.path} cannot be shown in a container: its name cannot be told to one", remedy=remedy)
    return structured, lines


def _empty(room: Path, hidden: Mount, mounts: Sequence[Mount]) -> Path:
    """Make what is seen in the place of *hidden*: nothing, but room for what is mounted there."""
    try:
        if Path(hidden.path).is_file():
            room.parent.mkdir(parents=True, exist_ok=True)
            room.touch(mode=0o444)
            return room
        room.mkdir(parents=True, exist_ok=True)
        for within, source in _below(hidden.path, mounts):
            place = room / within
            (place if Path(source).is_dir() else place.parent).mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.touch()
        # Its user is another than ours, and only ever passes through.
        for each in (room, *room.rglob("*")):
            each.chmod(0o755 if each.is_dir() else 0o444)
    except OSError as error:
        raise HostFailed(f"{error.filename} cannot be made for the sandbox: {error.strerror}") from error
    return room


def _below(path: str, mounts: Sequence[Mount]) -> Iterator[tuple[str, str]]:
    for mount in mounts:
        if mount.path != path and is_below(mount.path, path):
            yield str(Path(mount.path).relative_to(path)), mount.source or mount.path
