"""The command line: `kapelle`. Only what a command needs is loaded: most of them take longer to load than to run."""

import gc
import os
import sys
from io import TextIOWrapper
from typing import Any, NoReturn

from kapelle.apps.cli.leaving import leave
from kapelle.core.errors import Defect, KapelleError, UsageError, WorldError


def main() -> NoReturn:
    """Run the command line; errors are told, not traced."""
    _open_what_is_closed()
    _write_every_letter()
    # What is loaded stays: looking through it for garbage would take a sixth of the time. `go` switches it on again.
    gc.disable()
    try:
        code = _run(as_json="--json" in sys.argv)
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        code = 0
    leave(code)


def _open_what_is_closed() -> None:
    """Let what is written to a closed standard stream go nowhere.

    Else the next file that is opened would get its number, and what other programs say would be written into it.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # The lowest number that is free: in this order it is the stream's own.
            nowhere = os.open(os.devnull, os.O_RDWR)
            # Programs that are started have it as their own.
            os.set_inheritable(nowhere, True)  # it takes no name
            setattr(sys, name, os.fdopen(nowhere, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))


def _write_every_letter() -> None:
    """Let what the encoding of the terminal or the pipe lacks be written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        # A test may put something else in its place.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(*, as_json: bool) -> int:
    """Run the command and return its exit code."""
    try:
        _check_arguments()
        code = _called()
        # Here, so that a full disk is told of.
        _flush()
    except KapelleError as error:
        return _tell(error, as_json=as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        said = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        return _tell(WorldError(said[: 2 * WORDS]), as_json=as_json)
    except Exception as error:  # noqa: BLE001  # no person is to read a traceback; whoever mends it finds it in the file
        return _tell(_defect(error), as_json=as_json)
    return code


def _called() -> int:
    if sys.argv[1:] == ["--version"]:
        # The commands say the same, but loading them takes longer than anybody wants to wait for a number.
        from kapelle.apps.cli.version import version

        sys.stdout.write(f"{version()}\n")
        return 0
    from kapelle.apps.cli.commands import app

    return _told(app)


def _tell(error: KapelleError, *, as_json: bool) -> int:
    from kapelle.apps.cli.output import print_error

    for kind in (True, False) if as_json else (False,):
        try:
            print_error(error, as_json=kind)
            _flush()
        except BrokenPipeError:
            raise
        except OSError:
            # The disk is full where it was to be printed. The other place may have room; else the exit code tells.
            continue
        break
    return error.exit_code


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


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
