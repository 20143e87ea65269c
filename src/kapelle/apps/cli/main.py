"""The command line: `kapelle`. Only what a command needs is loaded: most of them take longer to load than to run."""

import gc
import sys

from kapelle.core.errors import KapelleError


def main() -> None:
    """Run the command line; errors are told, not traced."""
    if sys.argv[1:] == ["--version"]:
        # The commands say the same, but loading them takes longer than anybody wants to wait for a number.
        from kapelle.apps.cli.version import version

        sys.stdout.write(f"{version()}\n")
        return
    # What is loaded stays: looking through it for garbage would take a sixth of the time. `go` switches it on again.
    gc.disable()
    try:
        from kapelle.apps.cli.commands import app

        app()
    except KapelleError as error:
        from kapelle.apps.cli.output import print_error

        print_error(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.stderr.close()
        sys.exit(0)
