"""Which commands there are, and where they are: each is loaded when it is asked for."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from kapelle.apps.cli.version import version

EXIT_CODES = """Exit codes: 0 all completed · 1 something failed · 2 usage or configuration · 3 interrupted"""

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("Start", "init", "configuring:init"),
    ("Run", "run", "submitting:run"),
    ("Run", "submit", "submitting:submit"),
    ("Run", "resume", "submitting:resume"),
    ("Run", "retry", "submitting:retry"),
    ("Look", "status", "looking:status"),
    ("Look", "list", "looking:list_runs"),
    ("Look", "show", "looking:show"),
    ("Look", "top", "top.command:top"),
    ("Look", "agents", "steering:list_agents"),
    ("Look", "explain", "explaining:explain_task"),
    ("Look", "logs", "looking:logs"),
    ("Look", "events", "looking:events"),
    ("Look", "usage", "spending:usage"),
    ("Look", "report", "reporting:report"),
    ("Look", "pool", "pooling:pool"),
    ("Prove", "queue", "proving:queue"),
    ("Prove", "receipt", "proving:receipt"),
    ("Prove", "verify", "proving:verify_commit"),
    ("Keep", "recover", "keeping:recover"),
    ("Keep", "clean", "keeping:clean"),
    ("Keep", "restore", "mending:restore"),
    ("Steer", "inbox", "inbox:inbox"),
    ("Steer", "answer", "inbox:answer"),
    ("Steer", "scale", "pooling:scale"),
    ("Steer", "deploy", "pooling:deploy"),
    ("Steer", "pause", "asking:pause"),
    ("Steer", "cancel", "asking:cancel"),
    ("Look", "attach", "terminals:attach"),
    ("Steer", "takeover", "terminals:takeover"),
    ("Steer", "handback", "terminals:handback"),
    ("Steer", "send", "speaking:send"),
    ("Steer", "stop", "steering:stop"),
    ("Steer", "stop-all", "steering:stop_all"),
    ("Steer", "freeze", "steering:freeze"),
    ("Steer", "thaw", "steering:thaw"),
    ("Steer", "halt", "halting:halt"),
    ("Steer", "unhalt", "halting:unhalt"),
    ("Steer", "approve", "asking:approve"),
    ("Steer", "reject", "asking:reject"),
    ("Check", "doctor", "doctoring:doctor"),
    ("Check", "validate", "configuring:validate"),
    ("Check", "config", "configuring:config"),
    ("Check", "secrets", "securing:secrets"),
    ("Check", "rehearse", "rehearsing:app"),
)
"""Panel of the help, name, module of this folder and what it is called there."""


class Commands(dict[str, Any]):
    """Commands by name, loaded when they are asked for."""

    def __init__(self) -> None:
        super().__init__({name: None for _, name, _ in COMMANDS})

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)
        if found is None:
            self[name] = found = _load(name)
        return found

    def get(self, key: str, default: Any = None) -> Any:
        """See ``dict``, whose own would not load."""
        return self[key] if key in self else default  # noqa: SIM401  # that is this very method

    def items(self) -> Any:
        """See ``dict``."""
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        """See ``dict``."""
        return [self[name] for name in self]


def _load(name: str) -> Any:
    panel, place = next((panel, place) for panel, known, place in COMMANDS if known == name)
    module, _, attribute = place.partition(":")
    thing = getattr(import_module(f"kapelle.apps.cli.{module}"), attribute)
    if isinstance(thing, typer.Typer):
        found: Any = get_command(thing)
        found.name, found.rich_help_panel = name, panel
        return found
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    alone.command(name=name, rich_help_panel=panel, context_settings=HELP)(thing)
    return get_command(alone)


class Root(TyperGroup):
    """`kapelle` itself."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = Commands()


HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="kapelle",
    cls=Root,
    help="Run many coding agents in parallel, safely: each in its own worktree, checked by your gates, merged when proven.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=HELP,
)


def _print_version(show: bool) -> None:
    if show:
        typer.echo(version())
        raise typer.Exit


@app.callback()
def _root(
    _version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and end."
    ),
) -> None:
    """Run many coding agents in parallel, safely: each in its own worktree, checked by your gates, merged when proven."""
