"""`top`: the fleet on one screen, live; or once, as text or JSON."""

import sys
from typing import Annotated

import typer

from kapelle.apps.cli.common import Folder, Json, go, valid_configuration
from kapelle.apps.cli.lines import print_json
from kapelle.apps.cli.output import out
from kapelle.apps.cli.top.leaving import end_at_once
from kapelle.apps.cli.top.plain import print_fleet
from kapelle.apps.cli.top.watching import look_once
from kapelle.apps.fleet import Fleet
from kapelle.apps.fleet_json import fleet_json


def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end; so it does in a pipe.")] = False,
    repository: Folder = None,
    json: Json = False,
) -> None:
    """Everything on one screen, live: hosts, agents, questions, queue, spending.

    Keys: a attach, f freeze or thaw, s say, x stop, i or Enter answer, h halt or unhalt, / filter, ? help, q quit.
    """
    found = valid_configuration(repository)
    if json or once or not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        _print(go(look_once(found)), as_json=json)
        return
    from kapelle.apps.cli.top.screen import show

    acting = go(show(found, repository))
    if acting.at_work:
        end_at_once(acting.undone)


def _print(found: Fleet, *, as_json: bool) -> None:
    if as_json:
        print_json(fleet_json(found))
    else:
        print_fleet(out(), found)
