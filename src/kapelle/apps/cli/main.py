"""The command line: `kapelle`."""

import sys
from collections.abc import Callable
from typing import Any

import typer

from kapelle.apps.cli import asking, configuring, keeping, looking, mending, proving, rehearsing, submitting
from kapelle.apps.cli.output import print_error
from kapelle.core.errors import KapelleError

EXIT_CODES = """Exit codes: 0 all completed · 1 something failed · 2 usage or configuration · 3 interrupted"""

app = typer.Typer(
    name="kapelle",
    help="Run many coding agents in parallel, safely: each in its own worktree, checked by your gates, merged when proven.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("Start", "init", configuring.init),
    ("Run", "run", submitting.run),
    ("Run", "submit", submitting.submit),
    ("Run", "resume", submitting.resume),
    ("Run", "retry", submitting.retry),
    ("Look", "status", looking.status),
    ("Look", "list", looking.list_runs),
    ("Look", "show", looking.show),
    ("Look", "logs", looking.logs),
    ("Look", "events", looking.events),
    ("Prove", "queue", proving.queue),
    ("Prove", "receipt", proving.receipt),
    ("Prove", "verify", proving.verify_commit),
    ("Keep", "recover", keeping.recover),
    ("Keep", "clean", keeping.clean),
    ("Steer", "pause", asking.pause),
    ("Steer", "cancel", asking.cancel),
    ("Steer", "approve", asking.approve),
    ("Steer", "reject", asking.reject),
    ("Keep", "restore", mending.restore),
    ("Check", "validate", configuring.validate),
    ("Check", "config", configuring.config),
)
for panel, name, command in COMMANDS:
    app.command(name=name, rich_help_panel=panel)(command)
app.add_typer(rehearsing.app, name="rehearse", rich_help_panel="Check")


def version(show: bool) -> None:
    """Print the version and end."""
    if show:
        from importlib.metadata import version as installed

        typer.echo(f"kapelle {installed('kapelle')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Print the version and end."),
) -> None:
    """Run many coding agents in parallel, safely: each in its own worktree, checked by your gates, merged when proven."""


def main() -> None:
    """Run the command line; errors are told, not traced."""
    try:
        app()
    except KapelleError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.stderr.close()
        sys.exit(0)
