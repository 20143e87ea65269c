"""What Kapelle keeps: work under ``refs/kapelle/`` that can be had back, and files on disk that can go.

Nothing goes that is not merged: a ref is removed only when the branch that it was for holds its commit, and of files only what
runs that have ended left behind (logs, spools, homes of agents), and damaged stores that were put aside.
"""

import re
import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kapelle.apps import compose
from kapelle.apps.desk import Desk
from kapelle.core.errors import Ambiguous, NotFound, NotPossibleNow, UsageError
from kapelle.core.frozen import frozen
from kapelle.core.git import Ref
from kapelle.core.ids import RunId, TaskId
from kapelle.core.store import View
from kapelle.core.task import Task

PREFIX = "refs/kapelle/"
KEPT = "/kept/"
FOLDERS = ("agents", "checks", "homes", "logs", "reaped", "setup", "verify")
"""Folders below the state directory whose parts may go one by one."""
DAMAGED = "store.db.damaged-*"
ASIDE = re.compile(r"\.damaged-(\d{8}T\d{6})")


@frozen
class Kept:
    """Work that is kept under a ref."""

    ref: Ref
    repository: str
    task: Task | None
    """None when it is of another store, or of one that is lost."""
    merged: bool
    """Whether it has come to where it was meant to go."""
    branches: tuple[str, ...] = ()
    """Those that hold it."""
    files: tuple[str, ...] = ()
    """What it changes, compared with what it began from."""

    @property
    def name(self) -> str:
        """What it is called in a list."""
        return self.task.name if self.task is not None else "/".join(self.ref.name.split("/")[-2:])


async def kept(desk: Desk, repository: str) -> list[Kept]:
    """Return everything that is kept in *repository*, the newest first.

    Raises:
        GitFailed: git failed.
    """
    repositories = desk.world.repositories
    refs = [ref for ref in await repositories.refs(repository, PREFIX) if KEPT in ref.name]
    tasks = await desk.world.store.read(lambda view: {ref.name: _task_of(view, ref) for ref in refs})
    targets = await desk.world.store.read(lambda view: {name: _target_of(view, task) for name, task in tasks.items()})
    found: list[Kept] = []
    for ref in sorted(refs, key=lambda ref: (ref.at, ref.name), reverse=True):
        branches = await repositories.branches_with(repository, ref.commit)
        merged = _is_merged(ref, branches, targets[ref.name])
        task = tasks[ref.name]
        files: Sequence[str] = ()
        own = await repositories.since(repository, "HEAD", ref.commit) if not merged else ()
        # What was begun without anything before it has no base; git's name for the empty tree is not asked for that.
        base = await repositories.resolve(repository, f"{own[-1]}~1") if own else None
        if base is not None:
            files = await repositories.changed(repository, base, ref.commit)
        names = tuple(branch.name.removeprefix("refs/heads/").removeprefix("refs/remotes/") for branch in branches)
        entry = Kept(ref=ref, repository=repository, task=task, merged=merged, branches=names, files=tuple(files))
        found.append(entry)
    return found


def _is_merged(ref: Ref, branches: Sequence[Ref], target: str | None) -> bool:
    """Say whether kept work needs its ref no more."""
    if target is not None:
        # As far as the branch was fetched, too.
        return any(re.fullmatch(rf"refs/(heads|remotes/[^/]+)/{re.escape(target)}", branch.name) for branch in branches)
    # A branch that ends where it does is one that `recover` made of it: whoever deletes that may want it again.
    return any(branch.commit != ref.commit for branch in branches)


def _target_of(view: View, task: Task | None) -> str | None:
    run = view.runs.get(task.run_id) if task is not None else None
    return run.spec.target if run is not None else None


def _task_of(view: View, ref: Ref) -> Task | None:
    task_id = ref.name.rpartition(KEPT)[2].split("/")[0]
    return view.tasks.get(TaskId(task_id))


async def restore(desk: Desk, repository: str, which: str, branch: str | None) -> tuple[Kept, str]:
    """Make a branch of what is kept under *which* (a ref, a commit, a task's id or name); return it and the branch.

    Raises:
        NotFound: nothing like that is kept.
        Ambiguous: more than one thing is.
        NotPossibleNow: there is a branch of that name.
        UsageError: git takes no branch of that name.
    """
    chosen = _choose(await kept(desk, repository), which)
    name = branch or f"recovered/{chosen.name}-{chosen.ref.name.rpartition('/')[2]}"
    repositories = desk.world.repositories
    if await repositories.resolve(repository, f"refs/heads/{name}") is not None:
        raise NotPossibleNow(f"there is a branch {name} already", remedy="Name another one with --branch.")
    # A branch that looks like an option can be named to hardly any command of git.
    if name.startswith("-") or not await repositories.move_ref(repository, f"refs/heads/{name}", chosen.ref.commit, None):
        raise UsageError(f"git makes no branch called {name!r}", remedy="Name another one with --branch.")
    return chosen, name


def _choose(everything: Sequence[Kept], which: str) -> Kept:
    fits = [entry for entry in everything if _means(entry, which)]
    # Of several attempts of one task the last is meant.
    if not fits:
        raise NotFound(f"nothing is kept for {which}", remedy="`kapelle recover` lists what there is.")
    if len({entry.task.task_id if entry.task is not None else entry.ref.name for entry in fits}) > 1:
        names = ", ".join(entry.ref.name for entry in fits)
        raise Ambiguous(f"{which} may be any of {names}", remedy="Give the ref.")
    return max(fits, key=lambda entry: (entry.ref.at, entry.ref.name))


def _means(entry: Kept, which: str) -> bool:
    task = entry.task
    named = task is not None and (which == task.name or task.task_id.startswith((which, f"t-{which}")))
    return named or which == entry.ref.name or (len(which) >= 7 and entry.ref.commit.startswith(which))  # noqa: PLR2004


def kept_json(entry: Kept) -> dict[str, Any]:
    """Return kept work as JSON."""
    return {
        "ref": entry.ref.name,
        "commit": entry.ref.commit,
        "at": entry.ref.at.isoformat(),
        "subject": entry.ref.subject,
        "repository": entry.repository,
        "task": entry.task.name if entry.task is not None else None,
        "task_id": entry.task.task_id if entry.task is not None else None,
        "run_id": entry.task.run_id if entry.task is not None else None,
        "state": entry.task.state.value if entry.task is not None else None,
        "merged": entry.merged,
        "branches": list(entry.branches),
        "files": list(entry.files),
    }


# --- Cleaning ---------------------------------------------------------------------------------------------------------


@frozen
class Litter:
    """Something that may go: a path, or a ref of a repository."""

    what: str
    path: Path | None = None
    repository: str = ""
    ref: str = ""
    commit: str | None = None
    """Where the ref was; elsewhere it stays."""
    size: int = 0
    """In bytes."""
    at: datetime
    """When it was last written to."""


def to_free(litter: Iterable[Litter], now: datetime, *, age: float, keep: int | None, fixed: int = 0) -> list[Litter]:
    """Return what goes: what is older than *age* seconds, and beyond that the oldest until at most *keep* bytes are left.

    *fixed* are the bytes of what must stay; they count as left.
    """
    oldest_first = sorted(litter, key=lambda entry: entry.at)
    going = [entry for entry in oldest_first if (now - entry.at).total_seconds() > age]
    staying = oldest_first[len(going) :]
    left = fixed + sum(entry.size for entry in staying)
    for entry in staying:
        if keep is None or left <= keep:
            break
        if entry.size:
            going.append(entry)
            left -= entry.size
    return going


async def litter(desk: Desk, repository: str | None) -> list[Litter]:
    """Return everything that may go: files of runs that have ended, and refs in *repository* whose work a branch holds.

    Raises:
        GitFailed: git failed.
    """
    busy = await desk.world.store.read(_busy)
    home = Path(desk.world.folders.root)
    found = [entry for folder in FOLDERS for entry in _parts(home / folder, busy) if entry.path is not None]
    found += _set_aside(home)
    if repository is not None:
        for entry in await kept(desk, repository):
            if entry.merged:
                what = f"{entry.ref.name} (merged)"
                ref = entry.ref
                found.append(Litter(what=what, repository=repository, ref=ref.name, commit=ref.commit, at=ref.at))
    return found


def _busy(view: View) -> frozenset[str]:
    """Return the names of folders that something which has not ended may still need."""
    runs: list[RunId] = [run.run_id for run in view.runs.open()]
    agents = {agent.agent_id for agent in view.agents.live()}
    attempts = {
        attempt.attempt_id
        for run_id in runs
        for task in view.tasks.of_run(run_id)
        for attempt in view.attempts.of_task(task.task_id)
    }
    workspaces = {row.workspace_id for row in view.agents.workspaces()}
    return frozenset({*runs, *agents, *attempts, *workspaces})


def _parts(folder: Path, busy: frozenset[str]) -> list[Litter]:
    found: list[Litter] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        # A folder of a second process of one agent is called after the agent and the term of its leader.
        if path.name in busy or any(path.name.startswith(f"{name}-") for name in busy):
            continue
        size, newest = compose.taken(path)
        found.append(Litter(what=f"{folder.name}/{path.name}", path=path, size=size, at=datetime.fromtimestamp(newest, UTC)))
    return found


def _set_aside(home: Path) -> list[Litter]:
    """Return the damaged stores that `kapelle restore` has put aside, file by file; each is as old as that is."""
    found: list[Litter] = []
    for path in sorted(home.glob(DAMAGED)):
        stamp = ASIDE.search(path.name)
        size, newest = compose.taken(path)
        at = datetime.fromtimestamp(newest, UTC)
        if stamp is not None:
            # When it was last written to says nothing: that may have been long before.
            at = max(at, datetime.strptime(stamp[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC))
        found.append(Litter(what=f"{path.name} (a damaged store)", path=path, size=size, at=at))
    return found


def taken(home: Path) -> int:
    """Return the bytes that all of the state directory takes up on the disk, as ``du`` counts them."""
    return compose.taken(home)[0] if home.is_dir() else 0


async def free(desk: Desk, going: Iterable[Litter]) -> None:
    """Let *going* go.

    Raises:
        KapelleError: something could not be removed.
    """
    for entry in going:
        if entry.ref:
            await desk.world.repositories.delete_ref(entry.repository, entry.ref, entry.commit)
        elif entry.path is not None:
            await desk.world.workspaces.remove(str(entry.path), None)


def disk(path: Path) -> tuple[int, int]:
    """Return the bytes that are free on the disk of *path* (which may have to be made yet), and its size."""
    usage = shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists()))
    return usage.free, usage.total
