"""Backups of a store: whole copies beside it, checked before they count, the newest few kept.

store.db                          the store
backups/store-20260301T120000.db  what it held then
store.db.damaged-20260301T120500  a damaged one, kept aside by ``restore`` until `kapelle clean` finds it old
"""

import os
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from kapelle.adapters.system.processes import exists
from kapelle.core.errors import NotPossibleNow, StoreDamaged, StoreFailed
from kapelle.core.frozen import frozen

KEEP = 3
"""How many backups are kept."""
STAMP = "%Y%m%dT%H%M%S%f"


def means_damage(said: str) -> bool:
    """Say whether this is how SQLite speaks of a damaged file."""
    return "malformed" in said or "not a database" in said


def of(path: Path) -> list[Path]:
    """Return the backups of the store at *path*, the newest first."""
    return sorted((path.parent / "backups").glob(f"{path.stem}-*.db"), reverse=True)


def newest_event(path: Path) -> int:
    """Return the number of the newest event in the newest backup of the store at *path*, 0 when there is none to be read."""
    return max((_newest(backup) for backup in of(path)[:1]), default=0)


def _newest(path: Path) -> int:
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        return int(store.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
    return 0


def make(path: Path, now: datetime) -> Path:
    """Back the store at *path* up and return the backup.

    Raises:
        StoreDamaged: it is damaged.
        StoreFailed: the copy cannot be written.
    """
    goal = path.parent / "backups" / f"{path.stem}-{now.astimezone(UTC).strftime(STAMP)}.db"
    # Two processes may back up at the same moment: one that ends, and one that takes the lead from it.
    unfinished = goal.with_suffix(f".{os.getpid()}.unfinished")
    try:
        goal.parent.mkdir(mode=0o700, exist_ok=True)
        _clear_dead(goal.parent)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store, closing(sqlite3.connect(unfinished)) as copy:
            store.backup(copy)
            # One file, with nothing beside it that could be forgotten.
            copy.execute("PRAGMA journal_mode = DELETE")
        problem = _problem(unfinished)
        if problem:
            raise StoreDamaged(f"the store {path} is damaged: {problem}")
        _put(unfinished, goal)
        for old in of(path)[KEEP:]:
            old.unlink(missing_ok=True)
    except sqlite3.DatabaseError as error:
        if means_damage(str(error)):
            raise StoreDamaged(f"the store {path} is damaged: {error}") from error
        raise StoreFailed(f"the store {path} cannot be backed up: {error}") from error
    except OSError as error:
        raise StoreFailed(f"the store {path} cannot be backed up: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return goal


def _clear_dead(folder: Path) -> None:
    """Remove what processes that are gone had begun."""
    for litter in folder.glob("*.unfinished*"):
        pid = litter.name.partition(".unfinished")[0].rpartition(".")[2]
        if not pid.isdecimal() or not exists(int(pid)):
            litter.unlink(missing_ok=True)


def _put(source: Path, goal: Path) -> None:
    """Let *source* be *goal*, on the disk: the whole of it or nothing."""
    for entry, flags in ((source, os.O_RDWR), (source.parent, os.O_RDONLY)):
        if entry == source.parent:
            source.replace(goal)
        handle = os.open(entry, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _problem(path: Path) -> str:
    """Return what is wrong with the file at *path*, or nothing."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            said = str(store.execute("PRAGMA quick_check(1)").fetchone()[0])
            store.execute("SELECT count(*) FROM about").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if said == "ok" else said


@frozen
class Restored:
    """What came of putting a backup in the place of a damaged store."""

    backup: Path
    made_at: datetime
    aside: Path | None
    """Where the damaged file is now; None when it was gone."""
    missing: tuple[str, ...]
    """What had been accepted or begun since the backup, as far as the damaged file and the disk still tell."""


def restore(path: Path, now: datetime) -> Restored:
    """Put the newest good backup in the place of the damaged store at *path*; nobody may lead meanwhile.

    Raises:
        NotPossibleNow: the store is in order.
        StoreFailed: there is no good backup, or it cannot be put there.
    """
    if path.exists() and not _problem(path) and _newest(path) >= newest_event(path):
        raise NotPossibleNow(f"the store {path} is in order", remedy="There is nothing to restore.")
    good = next((backup for backup in of(path) if not _problem(backup)), None)
    if good is None:
        raise StoreFailed(f"there is no good backup of {path}", remedy="Move the file away to begin with an empty store.")
    gone = not path.exists()
    aside = path.with_name(f"{path.name}.damaged-{now.astimezone(UTC).strftime(STAMP)}")
    try:
        unfinished = path.with_name(f"{path.name}.unfinished")
        unfinished.write_bytes(good.read_bytes())
        for beside in ("", "-wal", "-shm"):
            old = Path(f"{path}{beside}")
            if old.exists():
                old.replace(f"{aside}{beside}")
        _put(unfinished, path)
    except OSError as error:
        raise StoreFailed(f"{good} cannot be put in the place of {path}: {error.strerror}") from error
    made_at = datetime.strptime(good.stem.rpartition("-")[2], STAMP).replace(tzinfo=UTC)
    later = [] if gone else _later(aside, path)
    return Restored(backup=good, made_at=made_at, aside=None if gone else aside, missing=(*later, *_on_disk(path)))


NAMED = {"runs": ("run_id", "run"), "tasks": ("task_id", "task"), "requests": ("request_id", "request")}


def _later(aside: Path, path: Path) -> list[str]:
    """Return what the damaged file still tells of runs, tasks and requests that the backup does not have."""
    found: list[str] = []
    for table, (key, word) in NAMED.items():
        known = _keys(path, table, key)
        found += [f"{word} {name}" for name in _keys(aside, table, key) if name not in known]
    return found


def _keys(path: Path, table: str, key: str) -> list[str]:
    found: list[str] = []
    # As many as can be read before the damage is met.
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        for row in store.execute(f"SELECT {key} FROM {table}"):  # noqa: S608  # names of our own
            found.append(str(row[0]))  # noqa: PERF401  # what was read before an error counts
    return found


def _on_disk(path: Path) -> list[str]:
    """Return the folders of workspaces and agents that the backup knows nothing of."""
    known = {Path(place) for place in _keys(path, "workspaces", "path")}
    workspaces, agents = path.parent / "workspaces", path.parent / "agents"
    found = [f"workspace {entry}" for entry in sorted(workspaces.glob("*")) if entry not in known]
    folders = {Path(place).name for place in _keys(path, "agents", "folder")}
    return [*found, *(f"agent {entry.name}" for entry in sorted(agents.glob("*")) if entry.name not in folders)]
