"""The same as the screen, once, as text: nothing in it is cut."""

from rich.console import Console
from rich.text import Text

from kapelle.apps.cli.tables import Column, print_hanging, print_table
from kapelle.apps.cli.top import panels
from kapelle.apps.cli.top.fitting import Panel
from kapelle.apps.fleet import Fleet

SEPARATOR = " · "


def print_fleet(console: Console, found: Fleet) -> None:
    """Print everything, panel by panel."""
    for parts in (panels.head(found), *panels.hosts(found)):
        console.print(Text(SEPARATOR).join(parts))
    for note in panels.notes(found):
        print_hanging(console, Text(), note.plain, str(note.style))
    for _, panel in panels.panels(found):
        console.print()
        console.print(Text(panel.title, style="bold"))
        if panel.rows:
            _print_rows(console, panel)
        else:
            console.print(Text(panel.nothing, style="dim"))


def _print_rows(console: Console, panel: Panel) -> None:
    told = [at for at in range(len(panel.fields)) if any(row.cells[at].plain for row in panel.rows)]
    columns = [
        Column(name=field.name, right=field.right, folds=field.least > 0, least=max(field.least, 8))
        for field in (panel.fields[at] for at in told)
    ]
    print_table(console, columns, [[row.cells[at] for at in told] for row in panel.rows])
