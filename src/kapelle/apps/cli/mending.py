"""`kapelle restore`."""

from rich.text import Text

from kapelle.apps import compose
from kapelle.apps.cli.common import Folder, Json, configuration
from kapelle.apps.cli.output import out, print_json


def restore(*, folder: Folder = None, json: Json = False) -> None:
    """Put the last automatic backup in the place of a damaged store, and name what is missing from it.

    The damaged file is kept beside it. Nobody may lead meanwhile. Agents that the backup does not know are ended by whoever
    leads next, after what they did is kept under refs/kapelle/.
    """
    restored = compose.restore_store(configuration(folder))
    if json:
        print_json(
            {
                "backup": str(restored.backup),
                "made_at": restored.made_at.isoformat(),
                "damaged": str(restored.aside) if restored.aside is not None else None,
                "missing": list(restored.missing),
            }
        )
        return
    console = out()
    console.print(Text(f"The store is now as it was at {restored.made_at.astimezone():%Y-%m-%d %H:%M:%S}.", style="green"))
    gone = restored.aside is None
    kept = "The store was gone: there is no damaged one to keep." if gone else f"The damaged one is kept: {restored.aside}"
    console.print(Text(kept))
    if restored.missing:
        who = "the disk tells" if gone else "the damaged file and the disk tell"
        console.print(Text(f"What {who} of since then is not in it:", style="yellow"))
        for entry in restored.missing:
            console.print(Text(f"  {entry}"))
        console.print(Text("Submit missing runs again. What their agents did is kept under refs/kapelle/ when you resume."))
    else:
        console.print(Text("Nothing was found that is missing from it."))
    console.print("Next: kapelle resume")
