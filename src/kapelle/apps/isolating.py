"""What agents.yml asks of a sandbox: read, put together from the whole file and one agent, and held against what it can."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kapelle.apps import models
from kapelle.apps.imaging import image
from kapelle.apps.settings import AUTO
from kapelle.core.errors import Mistake
from kapelle.core.gateway import Upstream
from kapelle.core.isolation import Isolation, Mount, MountKind, Network, NetworkKind, ProcessLimits
from kapelle.core.ports import Driver, Sandbox
from kapelle.core.run import RunSpec
from kapelle.core.sizes import format_size
from kapelle.core.task import WorkspaceKind

PREFERRED = ("bubblewrap",)
"""Sandboxes that are taken when none is named, the best first."""
NEEDED = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/dev")
"""What programs of the system need, and what they are."""
PLAIN = "process"
HELD = "`kapelle doctor` tells what each sandbox holds here"
LEAVE_OUT = f"leave it out, or log in where systemd runs for your user; {HELD}"


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


def own_login(upstream: Upstream, drivers: Iterable[Driver]) -> bool:
    """Say whether any of *drivers* calls its model with the operator's own login."""
    return upstream.own_login and any(driver.capabilities.uses_gateway for driver in drivers)


def because(sandboxes: Mapping[str, Sandbox], named: str, *, why_open: str) -> str:
    """Return why *named* does not mean a sandbox that isolates here; empty when it does, or when nobody left the choice."""
    if named != AUTO:
        return ""
    missing = [f"{name}: {problem}" for name in PREFERRED if name in sandboxes and (problem := sandboxes[name].missing())]
    return "; ".join((*missing, "`kapelle doctor` says what to do")) if missing else why_open


def unisolated(spec: RunSpec, sandboxes: Mapping[str, Sandbox], drivers: Mapping[str, Driver], named: str) -> str:
    """Return why nothing of a run is isolated although nobody asked for that, in words for people; empty when it is."""
    if named != AUTO or spec.workspace.sandbox != PLAIN:
        return ""
    logs_in = own_login(spec.upstream, (drivers[config.program] for config in spec.configs))
    reason = why_open({task.workspace for task in spec.tasks}, own_login=logs_in)
    return because(sandboxes, named, why_open=reason)


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
        if kind is MountKind.HIDE and _is_needed(path):
            advice = "leave it out, or hide what lies deeper"
            message = f"{written[:200]} cannot be hidden: programs of the system need it"
            wrong.append(Mistake(message=message, advice=advice, path=(*here, "mounts", written)))
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


def _is_needed(path: str) -> bool:
    """Say whether no program starts where *path* is hidden."""
    needed = {os.path.realpath(each) for each in NEEDED}
    return path in needed or any(Path(each).is_relative_to(path) for each in needed)


def unheld(
    sandbox: Sandbox | None, asked: Isolation, given: models.Isolated, here: tuple[str, ...] = (), *, because: str = ""
) -> list[Mistake]:
    """Return what of *asked* the sandbox cannot hold: better said before than not held after.

    *given* is what was written at *here*: what is not from there has its place where the whole file says it, or where another
    sandbox is named for it. *because* says why it is this sandbox, where nobody named it.
    """
    if sandbox is None or sandbox.missing():
        # That is a mistake of its own.
        return []
    can, name = sandbox.capabilities, f"the sandbox {sandbox.name}"
    why = f" (it is taken since {because})" if because else ""
    wrong: list[Mistake] = []

    def add(message: str, advice: str, *keys: str) -> None:
        own = _is_given(given, keys)
        path = (*here, *keys) if own else ((*here, "sandbox") if given.sandbox is not None else keys)
        wrong.append(Mistake(message=message, advice=advice, path=path))

    for limit in asked.limits.given():
        if limit not in can.limits:
            add(f"{name} cannot hold a limit of {limit.value} here{why}", LEAVE_OUT, "limits", limit.value)
    if asked.network.closed and not can.network:
        add(f"{name} keeps nobody from the network{why}", HELD, "network")
    if asked.image and not can.images:
        advice = "leave it out, or say `sandbox: container`"
        add(f"{name} takes its programs from this machine, not from an image{why}", advice, "image")
    if can.files:
        for message, advice in _written(asked):
            add(message, advice, "mounts")
    if not can.files and any(mount.kind is MountKind.HIDE for mount in asked.mounts):
        add(f"{name} hides nothing{why}", HELD, "mounts")
    return wrong


def _written(asked: Isolation) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with directories that agents may write, with advice: nobody is to rely on what is in them."""
    open_ = [mount.path for mount in asked.mounts if mount.kind is MountKind.WRITE]
    programs = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    for path in open_:
        if held := next((entry for entry in programs if Path(os.path.realpath(entry)).is_relative_to(path)), None):
            message = f"{held} is on your PATH, and agents could write it: Kapelle itself would start what they put there"
            advice = "name a directory below it that holds no programs, or take it off your PATH"
            yield message, advice
    for mount in asked.mounts:
        if outer := next((path for path in open_ if path != mount.path and Path(mount.path).is_relative_to(path)), None):
            message = (
                f"{mount.path} lies in {outer}, which agents may write: they decide what is there when the next one starts"
            )
            yield message, "leave one of the two out"


def _is_given(given: models.Isolated, keys: tuple[str, ...]) -> bool:
    found: Any = given
    for key in keys:
        if key not in found.model_fields_set:
            return False
        found = getattr(found, key)
    return True


def too_little(driver: Driver, asked: Isolation, given: models.Isolated, here: tuple[str, ...]) -> list[Mistake]:
    """Return what is wrong when the driver's program cannot work with the memory that it is left."""
    least, memory = driver.capabilities.least_memory, asked.limits.memory
    if memory is None or memory >= least:
        return []
    message = f"{driver.name} cannot work with {format_size(memory)} of memory"
    path = ("limits", "memory")
    own = (*here, *path) if _is_given(given, path) else path
    return [Mistake(message=message, advice=f"write {format_size(least)} or more", path=own)]


def not_given_away(task: str, sandbox: Sandbox | None) -> list[Mistake]:
    """Return what is wrong with a *task* that works in a directory of the operator's, in *sandbox*."""
    if os.geteuid() != 0 or sandbox is None or not sandbox.capabilities.files:
        return []
    message = f"agents that root starts in the sandbox {sandbox.name} own nothing of yours: {task} could not work there"
    advice = "leave `workspace: path` out, start Kapelle as another user, or write `sandbox: process` for its agent"
    return [Mistake(message=message, advice=advice, path=("tasks", task, "workspace"))]


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
