"""How a command ends: what it printed is there, what was to be done at the end is done, and its exit code tells."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kapelle.core.errors import UsageError, WorldError

KAPELLE = (sys.executable, "-m", "kapelle")
AT_THE_END = """
import atexit, sys, threading
sys.argv = ["kapelle", *{arguments}]
from kapelle.apps.cli.main import main
atexit.register(lambda: print("at the end"))
{before}
main()
"""
WORKS = """
def work():
    threading.main_thread().join()
    print("the work is done")
threading.Thread(target=work).start()
"""


def environment(folder: Path, *, buffered: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAPELLE_", "PYTHONUNBUFFERED"))}
    return {**kept, "KAPELLE_HOME": str(folder / "home"), **({} if buffered else {"PYTHONUNBUFFERED": "1"})}


def scripted(folder: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AT_THE_END.format(arguments=arguments, before=before)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment(folder, buffered=True),
    )


@pytest.mark.parametrize("arguments", [("--version",), ("status",)])
def test_what_was_registered_for_the_end_is_done(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = scripted(tmp_path, *arguments)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "at the end"


def test_a_thread_at_work_is_waited_for(tmp_path: Path) -> None:
    done = scripted(tmp_path, "--version", before=WORKS)
    assert done.returncode == 0
    assert "the work is done\n" in done.stdout


def test_a_stream_that_was_closed_is_no_mistake(tmp_path: Path) -> None:
    done = scripted(tmp_path, "--version", before="atexit.register(sys.stderr.close)")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_exit_code_is_that_of_the_error(tmp_path: Path) -> None:
    done = scripted(tmp_path, "nothing")
    assert done.returncode == UsageError.exit_code
    assert done.stdout.splitlines()[-1] == "at the end"


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", [("--version",), ("status",), ("status", "--json")])
def test_a_full_disk_is_told_of(tmp_path: Path, arguments: tuple[str, ...], buffered: bool) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [*KAPELLE, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment(tmp_path, buffered=buffered),
        )
    assert done.returncode == WorldError.exit_code
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_harms_nobody(tmp_path: Path, closed: str) -> None:
    command = f'"$0" -m kapelle status --json {closed}; echo "ended with $?" >> ended'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment(tmp_path, buffered=True),
    )
    assert (tmp_path / "ended").read_text(encoding="utf-8") == "ended with 0\n"
    assert done.stderr == ""
    if ">&-" not in closed.split():
        assert "agents" in json.loads(done.stdout)


def test_whoever_read_enough_ends_it_quietly(tmp_path: Path) -> None:
    command = '"$0" -m kapelle --help | true'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment(tmp_path, buffered=True),
    )
    assert done.stderr == ""


def test_all_of_a_long_output_arrives(tmp_path: Path) -> None:
    command = [*KAPELLE, "config", "--json"]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment(tmp_path, buffered=True)
    )
    assert json.loads(found.stdout)


SAYS_AND_OPENS = """
import subprocess, sys
from kapelle.apps.cli.main import _open_what_is_closed
_open_what_is_closed()
look = "import sys; open('found', 'w').write(repr([sys.stdin is None, sys.stdout is None, sys.stderr is None]))"
subprocess.run([sys.executable, "-c", look])
"""


def test_other_programs_have_the_closed_streams_open_too(tmp_path: Path) -> None:
    command = ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, SAYS_AND_OPENS]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment(tmp_path, buffered=True))
    assert (tmp_path / "found").read_text(encoding="utf-8") == "[False, False, False]"
