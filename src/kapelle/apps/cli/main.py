"""The command line: `kapelle`. Only what a command needs is loaded: most of them take longer to load than to run."""

import gc
import sys
from io import TextIOWrapper
from typing import Any

from kapelle.core.errors import Defect, KapelleError, UsageError, WorldError


def main() -> None:
    """Run the command line; errors are told, not traced."""
    _write_every_letter()
    if sys.argv[1:] == ["--version"]:
        # The commands say the same, but loading them takes longer than anybody wants to wait for a number.
        from kapelle.apps.cli.version import version

        sys.stdout.write(f"{version()}\n")
        return
    # What is loaded stays: looking through it for garbage would take a sixth of the time. `go` switches it on again.
    gc.disable()
    try:
        sys.exit(_run(as_json="--json" in sys.argv))
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.stderr.close()
        sys.exit(0)


def _write_every_letter() -> None:
    """Let what the encoding of the terminal or the pipe lacks be written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        # A closed one is None; a test may put something else in its place.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(*, as_json: bool) -> int:
    """Run the command and return its exit code."""
    try:
        _check_arguments()
        from kapelle.apps.cli.commands import app

        return _told(app)
    except KapelleError as error:
        return _tell(error, as_json=as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        said = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        return _tell(WorldError(said[: 2 * WORDS]), as_json=as_json)
    except Exception as error:  # noqa: BLE001  # no person is to read a traceback; whoever mends it finds it in the file
        return _tell(_defect(error), as_json=as_json)


def _tell(error: KapelleError, *, as_json: bool) -> int:
    from kapelle.apps.cli.output import print_error

    print_error(error, as_json=as_json)
    return error.exit_code


def _check_arguments() -> None:
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            shown = argument.encode(errors="backslashreplace").decode()
            raise UsageError(f"the argument {shown[:WORDS]!r} is no UTF-8 text", remedy="Write it as UTF-8.") from error


WORDS = 200
"""Characters of an argument that are told."""


def _told(app: Any) -> int:
    """Run the command; what its option parser refuses is told like every other error."""
    from typer import Abort
    from typer._click.exceptions import ClickException, NoArgsIsHelpError  # typer keeps its own copy, and names it nowhere else

    try:
        # Not standing alone it raises what it would print.
        found = app(standalone_mode=False, prog_name="kapelle")
    except NoArgsIsHelpError:
        # It has printed the help already.
        return UsageError.exit_code
    except ClickException as error:
        from kapelle.apps.cli.parsing import told

        raise told(error) from error
    except Abort:
        return INTERRUPTED
    return found if isinstance(found, int) else 0


INTERRUPTED = 3


def _defect(error: Exception) -> Defect:
    """Return what is told of an error that nobody foresaw, its traceback in a file."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="kapelle-defect-", suffix=".txt", delete=False, encoding="utf-8") as stream:
        stream.write("".join(traceback.format_exception(error)).encode(errors="replace").decode())
    text = f"{type(error).__name__}: {error}".encode(errors="replace").decode()
    return Defect(
        f"a defect of Kapelle: {text[:WORDS]}", remedy=f"Report it with {stream.name}, which tells where it happened."
    )
