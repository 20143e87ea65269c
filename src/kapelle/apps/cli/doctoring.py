"""`kapelle doctor`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from kapelle.apps import compose
from kapelle.apps.cli.common import Folder, Json, directory, go
from kapelle.apps.cli.lines import print_json
from kapelle.apps.cli.output import out
from kapelle.apps.cli.tables import print_hanging
from kapelle.apps.doctor import Finding, Standing, examine
from kapelle.apps.settings import load
from kapelle.core.errors import Mistake

MARKS = {Standing.OK: ("✓", "green"), Standing.NOTE: ("·", "yellow"), Standing.PROBLEM: ("✗", "bold red")}
NOT_IN_ORDER = 1


def doctor(
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended without losing anything.")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Look whether machine, project and store are in order, and say what to do. Exit code 1 when something is not."""
    if not go(_doctor(repository, fix=fix, as_json=json)):
        raise typer.Exit(NOT_IN_ORDER)


async def _doctor(folder: Path | None, *, fix: bool, as_json: bool) -> bool:
    found: list[Finding] = []
    wrong: list[Mistake] = []
    async for finding in examine(load(directory(folder), wrong=wrong), compose.machine(), fix=fix, wrong=wrong):
        found.append(finding)
        if not as_json:
            _print(finding)
    problems = [finding for finding in found if finding.standing is Standing.PROBLEM and not finding.mended]
    if as_json:
        listed = [
            {
                "area": finding.area,
                "standing": finding.standing.value,
                "what": finding.what,
                "remedy": finding.remedy or None,
                "mended": finding.mended,
            }
            for finding in found
        ]
        print_json({"in_order": not problems, "findings": listed})
    elif problems:
        out().print(Text(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}.", style="bold red"))
    else:
        out().print(Text("All is in order.", style="bold green"))
    return not problems


def _print(finding: Finding) -> None:
    mark, style = ("✓", "green") if finding.mended else MARKS[finding.standing]
    note = "  (mended)" if finding.mended else ""
    print_hanging(out(), Text.assemble((mark, style), f" {finding.area:<12} "), f"{finding.what}{note}")
    if finding.remedy and not finding.mended:
        print_hanging(out(), Text(f"  {'':<12} → ", style="green"), finding.remedy, "green")
