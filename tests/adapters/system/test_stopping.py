"""Holding processes still by signals, one by one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kapelle.adapters.system import stopping

STARTS = """
import os, sys
print("up", flush=True)
opened = [(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)]
os.waitpid(os.posix_spawn("/bin/true", ["true"], {}, file_actions=opened), 0)
print("on", flush=True)
"""
PATIENCE = 20


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture
def starting(pipe: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process in the middle of starting another one, which waits for somebody who writes to the pipe."""
    with subprocess.Popen([sys.executable, "-c", STARTS, str(pipe)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            for each in _family(process.pid):
                each.kill()


def _family(pid: int) -> list[psutil.Process]:
    try:
        found = psutil.Process(pid)
        return [*found.children(recursive=True), found]
    except psutil.NoSuchProcess:
        return []


async def test_who_is_about_to_start_somebody_is_held_still_with_them(starting: "subprocess.Popen[str]", pipe: Path) -> None:
    """It waits in the kernel until the other has begun, and so cannot be seen to stop; nor does it do anything."""
    while len(_family(starting.pid)) < 2:
        assert starting.poll() is None

    await stopping.stop(lambda: [each.pid for each in _family(starting.pid)])

    child, parent = _family(starting.pid)
    assert child.status() == psutil.STATUS_STOPPED
    stopping.go_on([parent.pid, child.pid])
    with pipe.open("w"):
        assert starting.communicate(timeout=PATIENCE)[0] == "on\n"
