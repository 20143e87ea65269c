"""What a store that was restored from a backup knows nothing of, and git does."""

from datetime import datetime
from typing import Any

from kapelle.apps import compose
from kapelle.apps.desk import Desk
from kapelle.apps.settings import Configuration
from kapelle.core.errors import KapelleError, RepositoryRefused
from kapelle.core.frozen import frozen
from kapelle.core.store import View


@frozen
class Merge:
    """A merge that is in git and not in the store."""

    repository: str
    commit: str
    subject: str
    at: datetime
    run_ids: tuple[str, ...]
    task_ids: tuple[str, ...]


@frozen
class Ahead:
    """What was merged after a backup was made."""

    merges: tuple[Merge, ...]
    unread: tuple[str, ...]
    """Why repositories could not be looked at."""


async def ahead(configuration: Configuration, desk: Desk, made_at: datetime) -> Ahead:
    """Return what git knows to be merged since *made_at*, and the store does not; what no branch holds of it is kept."""
    merges, unread = list[Merge](), list[str]()
    for repository in await _repositories(configuration, desk):
        try:
            known = await compose.merges_since(repository, desk.world.store.store_id, made_at)
        except KapelleError as error:
            unread.append(error.message)
            continue
        commits = [entry.commit for entry in known]
        held = await desk.world.store.read(lambda view, commits=commits: {name for name in commits if _held(view, name)})
        await _keep(desk, repository, set(commits) - held)
        merges += [
            Merge(
                repository=repository,
                commit=entry.commit,
                subject=entry.subject,
                at=entry.at,
                run_ids=entry.run_ids,
                task_ids=entry.task_ids,
            )
            for entry in known
            if entry.commit not in held
        ]
    return Ahead(merges=tuple(merges), unread=tuple(unread))


async def _keep(desk: Desk, repository: str, unknown: set[str]) -> None:
    """Keep the ends of lines that the store does not know: nobody would ever look at their refs again."""
    repositories, prefix = desk.world.repositories, f"refs/kapelle/{desk.world.store.store_id}"
    for ref in await repositories.refs(repository, f"{prefix}/integration/"):
        if ref.commit in unknown and not await repositories.branches_with(repository, ref.commit):
            await repositories.move_ref(repository, f"{prefix}/kept/ahead/{ref.commit}", ref.commit, None)


def _held(view: View, commit: str) -> bool:
    return bool(view.changes.merged_as(commit))


async def _repositories(configuration: Configuration, desk: Desk) -> list[str]:
    """Return the repositories of all runs that the store knows, and the one that the command is called in."""
    runs = await desk.world.store.read(lambda view: [overview.run.spec for overview in view.runs.overviews(limit=1_000_000)])
    found = {spec.repository for spec in runs if spec.repository is not None}
    try:
        found.add((await desk.world.repositories.inspect(str(configuration.root))).root)
    except RepositoryRefused:
        # It is called from anywhere.
        return sorted(found)
    return sorted(found)


def merge_json(merge: Merge) -> dict[str, Any]:
    """Return *merge* as JSON."""
    return {
        "repository": merge.repository,
        "commit": merge.commit,
        "subject": merge.subject,
        "at": merge.at.isoformat(),
        "run_ids": list(merge.run_ids),
        "task_ids": list(merge.task_ids),
    }
