"""`kapelle restore`."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.text import Text

from kapelle.apps import compose
from kapelle.apps.cli.common import Folder, Json, configuration, go
from kapelle.apps.cli.lines import print_json
from kapelle.apps.cli.output import out
from kapelle.apps.restoring import Ahead, ahead, merge_json
from kapelle.core.plain_text import shown


def restore(*, folder: Folder = None, json: Json = False) -> None:
    """Put the last automatic backup in the place of a damaged store, and name what is missing from it.

    The damaged file is kept beside it. Nobody may lead meanwhile. Agents that the backup does not know are ended by whoever
    leads next, after what they did is kept under refs/kapelle/. Merges that only git knows of are named, too.
    """
    go(_restore(folder, as_json=json))


async def _restore(folder: Path | None, *, as_json: bool) -> None:
    found = configuration(folder)
    restored = compose.restore_store(found)
    async with compose.open_desk(found) as desk:
        since = await ahead(found, desk, restored.made_at)
    if as_json:
        print_json(
            {
                "backup": str(restored.backup),
                "made_at": restored.made_at.isoformat(),
                "damaged": str(restored.aside) if restored.aside is not None else None,
                "missing": list(restored.missing),
                "merged": [merge_json(merge) for merge in since.merges],
                "unread": list(since.unread),
            }
        )
        return
    _tell(restored.made_at, restored.aside, restored.missing, since)


def _tell(made_at: datetime, aside: Path | None, missing: Sequence[str], since: Ahead) -> None:
    console = out()
    console.print(Text(f"The store is now as it was at {made_at.astimezone():%Y-%m-%d %H:%M:%S}.", style="green"))
    gone = aside is None
    kept = "The store was gone: there is no damaged one to keep." if gone else f"The damaged one is kept: {aside}"
    console.print(Text(kept))
    if since.merges:
        console.print(Text("What was merged since then is in git, and not in it:", style="yellow"))
        for merge in since.merges:
            console.print(Text(f"  {merge.commit[:10]} {shown(merge.subject)} ({shown(merge.repository)})"))
        console.print(Text("It stays: what no branch holds of it is kept under refs/kapelle/ (`kapelle recover`)."))
    for reason in since.unread:
        console.print(Text(f"What was merged since then cannot be told: {shown(reason)}", style="yellow"))
    if missing:
        who = "the disk tells" if gone else "the damaged file and the disk tell"
        console.print(Text(f"What {who} of since then is not in it:", style="yellow"))
        for entry in missing:
            console.print(Text(f"  {shown(entry)}"))
        again = ", but for what was merged" if since.merges else ""
        kept = "What their agents did is kept under refs/kapelle/ when you resume."
        console.print(Text(f"Submit missing runs again{again}. {kept}"))
    elif not since.merges:
        console.print(Text("Nothing was found that is missing from it."))
    console.print("Next: kapelle resume")
