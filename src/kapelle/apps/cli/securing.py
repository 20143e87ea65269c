"""`kapelle secrets`."""

from pathlib import Path

import typer
from rich.text import Text

from kapelle.apps.cli.common import Folder, Json, configuration, go
from kapelle.apps.cli.lines import print_json, say
from kapelle.apps.cli.output import out
from kapelle.apps.cli.tables import print_hanging
from kapelle.apps.secrets import look


def secrets(*, repository: Folder = None, json: Json = False) -> None:
    """List the secrets that agents must have, by reference, and whether each is to be had here. No value is shown."""
    if not go(_secrets(repository, as_json=json)):
        raise typer.Exit(1)


async def _secrets(folder: Path | None, *, as_json: bool) -> bool:
    found = await look(configuration(folder))
    if as_json:
        print_json(
            [
                {
                    "agent": entry.agent,
                    "name": entry.name,
                    "reference": entry.reference,
                    "to_be_had": not entry.problem,
                    "problem": entry.problem or None,
                    "remedy": entry.remedy or None,
                }
                for entry in found
            ]
        )
        return not any(entry.problem for entry in found)
    if not found:
        say("No agent has secrets: `secrets:` of an agent in .kapelle/agents.yml names them.")
    for entry in found:
        mark, style = ("✗", "red") if entry.problem else ("✓", "green")
        out().print(Text.assemble((mark, style), f" {entry.agent:<12} {entry.name:<20} {entry.reference}"))
        if entry.problem:
            print_hanging(out(), Text("  "), entry.problem, "red")
            print_hanging(out(), Text("  → ", style="green"), entry.remedy, "green")
    return not any(entry.problem for entry in found)
