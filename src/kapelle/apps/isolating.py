"""What agents.yml asks of a sandbox: read, put together from the whole file and one agent, and held against what it can."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from kapelle.apps import models
from kapelle.apps.imaging import image
from kapelle.apps.settings import AUTO
from kapelle.core.errors import Mistake
from kapelle.core.isolation import Isolation, Mount, MountKind, Network, NetworkKind, ProcessLimits
from kapelle.core.ports import Sandbox
from kapelle.core.run import RunSpec
from kapelle.core.task import WorkspaceKind

PREFERRED = ("bubblewrap",)
"""Sandboxes that are taken when none is named, the best first."""
PLAIN = "process"
HELD = "`kapelle doctor` tells what each sandbox holds here"


def chosen(sandboxes: Mapping[str, Sandbox], named: str, *, why_open: str = "") -> str:
    """Return the sandbox that *named* means here; *why_open* says why the work cannot be done in one that hides files."""
    if named != AUTO:
        return named
    works = (name for name in PREFERRED if name in sandboxes and not sandboxes[name].missing())
    return PLAIN if why_open else next(works, PLAIN)


def why_open(kinds: Collection[WorkspaceKind | None], *, own_login: bool) -> str:
    """Return why work cannot be done in a sandbox that hides files, in words for people; empty when it can."""
    if own_login:
        return "the login of claude is in your own home"
    if WorkspaceKind.PATH in kinds and os.geteuid() == 0:
        return "a task works in a directory of yours, and you are root"
    return ""


def unisolated(spec: RunSpec, sandboxes: Mapping[str, Sandbox], named: str) -> str:
    """Return why nothing of a run is isolated although nobody asked for that, in words for people; empty when it is."""
    if named != AUTO or spec.workspace.sandbox != PLAIN:
        return ""
    reason = why_open({task.workspace for task in spec.tasks}, own_login=spec.upstream.own_login)
    missing = [f"{name}: {problem}" for name in PREFERRED if name in sandboxes and (problem := sandboxes[name].missing())]
    return "; ".join(missing) or reason


def isolation(
    root: Path, asked: models.Isolated, whole: Isolation | None = None, here: tuple[str, ...] = ()
) -> tuple[Isolation, list[Mistake]]:
    """Return what *asked* means at *root*, and what is wrong with it; what it leaves open is as in *whole*."""
    base = whole or Isolation()
    wrong: list[Mistake] = []
    mounts = {mount.path: mount for mount in base.mounts}
    for written, kind in asked.mounts.items():
        path, problem = _place(root, written)
        if problem:
            wrong.append(Mistake(message=problem, advice="make it, or leave it out", path=(*here, "mounts", written)))
        mounts[path] = Mount(kind=kind, path=path)
    folders: list[str] = []
    for index, written in enumerate(asked.path):
        path, problem = _place(root, written)
        if problem or not Path(path).is_dir():
            advice = "name a directory of programs"
            wrong.append(Mistake(message=problem or f"{path} is no directory", advice=advice, path=(*here, "path", index)))
        folders.append(path)
    kept = base.image
    if asked.image is not None:
        kept, problems = image(root, asked.image, here)
        wrong += problems
    found = Isolation(
        limits=_limits(asked.limits, base.limits),
        network=base.network if asked.network is None else _network(asked.network),
        mounts=tuple(mounts.values()),
        path=(*folders, *(folder for folder in base.path if folder not in folders)),
        image=kept,
    )
    return found, wrong


def unheld(sandbox: Sandbox | None, asked: Isolation, here: tuple[str, ...] = ()) -> list[Mistake]:
    """Return what of *asked* the sandbox cannot hold: better said before than not held after."""
    if sandbox is None or sandbox.missing():
        # That is a mistake of its own.
        return []
    can, name = sandbox.capabilities, sandbox.name
    wrong: list[Mistake] = []
    for limit in asked.limits.given():
        if limit not in can.limits:
            message = f"the sandbox {name} cannot hold a limit of {limit.value} here"
            wrong.append(Mistake(message=message, advice=HELD, path=(*here, "limits")))
    if asked.network.closed and not can.network:
        message = f"the sandbox {name} keeps nobody from the network"
        wrong.append(Mistake(message=message, advice=HELD, path=(*here, "network")))
    if asked.image and not can.images:
        message = f"the sandbox {name} takes its programs from this machine, not from an image"
        wrong.append(Mistake(message=message, advice="leave it out, or say `sandbox: container`", path=(*here, "image")))
    if can.files:
        wrong += _written(asked, here)
    if not can.files and any(mount.kind is MountKind.HIDE for mount in asked.mounts):
        message = f"the sandbox {name} hides nothing"
        wrong.append(Mistake(message=message, advice=HELD, path=(*here, "mounts")))
    return wrong


def _written(asked: Isolation, here: tuple[str, ...]) -> Iterator[Mistake]:
    """Yield what is wrong with directories that agents may write: nobody outside is to rely on what is in them."""
    open_ = [mount.path for mount in asked.mounts if mount.kind is MountKind.WRITE]
    programs = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    for path in open_:
        if held := next((entry for entry in programs if Path(os.path.realpath(entry)).is_relative_to(path)), None):
            message = f"{held} is on your PATH, and agents could write it: Kapelle itself would start what they put there"
            advice = "name a directory below it that holds no programs, or take it off your PATH"
            yield Mistake(message=message, advice=advice, path=(*here, "mounts"))
    for mount in asked.mounts:
        if outer := next((path for path in open_ if path != mount.path and Path(mount.path).is_relative_to(path)), None):
            message = (
                f"{mount.path} lies in {outer}, which agents may write: they decide what is there when the next one starts"
            )
            yield Mistake(message=message, advice="leave one of the two out", path=(*here, "mounts"))


def _place(root: Path, written: str) -> tuple[str, str]:
    """Return the path that *written* means, and what is wrong with it."""
    try:
        path = (root / Path(written).expanduser()).resolve()
        return str(path), "" if path.exists() else f"{path} does not exist"
    except (OSError, RuntimeError, ValueError) as error:
        return written, f"{written[:200]!r} cannot be found: {error}"


def _limits(asked: models.ProcessLimits, base: ProcessLimits) -> ProcessLimits:
    return ProcessLimits(
        memory=asked.memory if asked.memory is not None else base.memory,
        cpus=asked.cpus if asked.cpus is not None else base.cpus,
        pids=asked.pids if asked.pids is not None else base.pids,
        disk=asked.disk if asked.disk is not None else base.disk,
        files=asked.files if asked.files is not None else base.files,
    )


def _network(asked: str | models.AllowedNetwork) -> Network:
    if isinstance(asked, str):
        return Network(kind=NetworkKind(asked))
    return Network(kind=NetworkKind.ALLOW, hosts=tuple(asked.allow), private=tuple(asked.private))
