"""Merges that git knows of: what the merge queue made carries who did it in its message, whatever became of the store."""

from datetime import UTC, datetime

from kapelle.adapters.system.git import Git, plain
from kapelle.core.frozen import frozen

COUNT = 5
"""How many fields a commit is listed with."""
FIELDS = "%x00".join(
    ["%H", "%ct", "%s", *(f"%(trailers:key=Kapelle-{key},valueonly,separator=%x2C)" for key in ("Run", "Task"))]
)


@frozen
class KnownMerge:
    """A commit that a merge queue made."""

    commit: str
    subject: str
    at: datetime
    run_ids: tuple[str, ...]
    task_ids: tuple[str, ...]


async def merges_since(repository: str, store_id: str, moment: datetime) -> list[KnownMerge]:
    """Return what the merge queue of *store_id* has made since *moment* in *repository*, the newest first.

    It is on the integration refs, in what was kept of them, and where it was delivered.

    Raises:
        GitFailed: git failed.
    """
    git = Git(repository)
    places = [f"refs/kapelle/{store_id}/{place}" for place in ("integration", "kept/ahead")]
    refs = (await git.do("for-each-ref", "--format=%(refname)", *places)).lines
    targets = {ref.removeprefix(f"{places[0]}/").partition("@")[0] for ref in refs if ref.startswith(places[0])}
    heads = (await git.do("for-each-ref", "--format=%(refname)", *[f"refs/heads/{name}" for name in sorted(targets)])).lines
    if not refs:
        return []
    # A commit has no parts of a second.
    since = f"--since-as-filter={int(moment.timestamp())}"
    said = await git.do("log", "--first-parent", "-z", since, f"--format={FIELDS}", *refs, *heads, "--")
    parts = [part.decode(errors="surrogateescape") for part in said.out.split(b"\0")]
    found = [
        KnownMerge(
            commit=commit,
            subject=plain(subject),
            at=datetime.fromtimestamp(int(seconds), UTC),
            run_ids=tuple(dict.fromkeys(runs.split(","))),
            task_ids=tuple(dict.fromkeys(tasks.split(","))),
        )
        for commit, seconds, subject, runs, tasks in (parts[n : n + COUNT] for n in range(0, len(parts) - COUNT + 1, COUNT))
        if tasks
    ]
    return list({entry.commit: entry for entry in found}.values())
