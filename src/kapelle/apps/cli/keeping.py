"""`recover` and `clean`: work that is kept, and what takes up the disk."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from kapelle.apps import compose
from kapelle.apps.cli.common import Folder, Json, configuration, go, valid_configuration
from kapelle.apps.cli.lines import print_json, say
from kapelle.apps.cli.output import out
from kapelle.apps.cli.tables import Column, print_table
from kapelle.apps.desk import Desk
from kapelle.apps.keeping import Kept, Litter, disk, free, kept, kept_json, litter, restore, taken, to_free
from kapelle.core.durations import parse_duration
from kapelle.core.errors import RepositoryRefused, UsageError
from kapelle.core.sizes import format_size, parse_size

KEPT = (
    Column(name="TASK", folds=True),
    Column(name="WHEN"),
    Column(name="STATE", folds=True),
    Column(name="FILES", right=True),
    Column(name="REF"),
)


def recover(
    which: Annotated[
        str | None, typer.Argument(metavar="TASK|REF", help="What to restore; without it, what is kept is listed.")
    ] = None,
    *,
    branch: Annotated[
        str | None, typer.Option("--branch", help="The branch to make of it.", show_default="recovered/TASK-ATTEMPT")
    ] = None,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """List work that was not merged and is kept under refs/kapelle/, or make a branch of it."""
    if which is None and branch is not None:
        raise UsageError("--branch says nothing without a task or a ref", remedy="kapelle recover TASK --branch NAME")
    go(_recover(repository, which, branch, as_json=json))


def clean(
    *,
    older_than: Annotated[str, typer.Option("--older-than", help="Remove what is older, for example 12h or 7d.")] = "14d",
    keep: Annotated[
        str | None,
        typer.Option("--keep", help="Keep at most so much in the state directory, for example 500MB: the oldest goes first."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would go.")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Free the disk of what ended runs left: logs, spools, homes of agents, damaged stores, refs of merged work.

    Never unmerged work: workspaces, what was set aside, the store and its backups stay. Sizes are those on the disk.
    """
    try:
        age = parse_duration(older_than)
    except ValueError as error:
        raise UsageError(str(error), remedy="Write it with its unit: 12h, 7d.") from error
    go(_clean(repository, (age, older_than), _size(keep) if keep is not None else None, dry_run=dry_run, as_json=json))


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


async def _repository(desk: Desk, root: Path) -> str | None:
    """Return the repository that *root* is in, or None when it is in none."""
    try:
        return (await desk.world.repositories.inspect(str(root))).root
    except RepositoryRefused:
        return None


async def _recover(folder: Path | None, which: str | None, branch: str | None, *, as_json: bool) -> None:
    found = valid_configuration(folder)
    async with compose.open_desk(found, make=False) as desk:
        root = (await desk.world.repositories.inspect(str(found.root))).root
        if which is None:
            _list(await kept(desk, root), as_json=as_json)
            return
        chosen, name = await restore(desk, root, which, branch)
        if as_json:
            print_json({**kept_json(chosen), "branch": name})
            return
        say(f"The branch {name} holds what is kept of {chosen.name} ({chosen.ref.commit[:10]}).")
        say(f"  look at it: git log -p -1 {name}      bring it in: git merge {name}")


def _list(everything: list[Kept], *, as_json: bool) -> None:
    if as_json:
        print_json([kept_json(entry) for entry in everything])
        return
    if not everything:
        say("Nothing is kept: all work is merged.")
        return
    rows: list[list[Text]] = []
    for entry in everything:
        state = "merged" if entry.merged else (entry.task.state.value if entry.task is not None else "of another store")
        state += f", on {entry.branches[0]}" if entry.branches and not entry.merged else ""
        when = f"{entry.ref.at.astimezone():%Y-%m-%d %H:%M}"
        style = "dim" if entry.merged else ""
        files = "" if entry.merged else str(len(entry.files))
        rows.append([Text(part, style=style) for part in (entry.name, when, state, files, entry.ref.name)])
    print_table(out(), KEPT, rows)
    say("kapelle recover TASK|REF makes a branch of it.")


async def _clean(folder: Path | None, age: tuple[timedelta, str], keep: int | None, *, dry_run: bool, as_json: bool) -> None:
    found = configuration(folder)
    async with compose.open_desk(found, make=False) as desk:
        everything = await litter(desk, await _repository(desk, found.root))
        whole = taken(found.settings.home)
        fixed = max(whole - sum(entry.size for entry in everything), 0)
        going = to_free(everything, desk.world.clock.now(), age=age[0].total_seconds(), keep=keep, fixed=fixed)
        if not dry_run:
            await free(desk, going)
        left = disk(found.settings.home)[0]
    freed = sum(entry.size for entry in going)
    stays = max(whole - freed, 0)
    if as_json:
        print_json(
            {
                "removed": [{"what": entry.what, "bytes": entry.size, "at": entry.at.isoformat()} for entry in going],
                "freed_bytes": freed,
                "kept_bytes": stays,
                "disk_free_bytes": left,
                "dry_run": dry_run,
            }
        )
        return
    _tell(going, freed, stays, age[1], dry_run=dry_run)


def _tell(going: list[Litter], freed: int, stays: int, age: str, *, dry_run: bool) -> None:
    console = out()
    for entry in going if dry_run else ():
        console.print(f"{format_size(entry.size):>10}  {entry.at.astimezone():%Y-%m-%d}  {entry.what}")
    if not going:
        console.print(f"Nothing is older than {age} and may go; {format_size(stays)} stay.")
        return
    done = "would be freed" if dry_run else "freed"
    console.print(f"{format_size(freed)} {done} ({len(going)} parts); {format_size(stays)} stay.")
