"""What only this machine's host must do: agents outlive a leader that is killed, whatever shell is /bin/sh."""

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from kapelle.adapters.hosts.local import LocalHost
from kapelle.adapters.hosts.shim import SHIM
from kapelle.adapters.system.files import many_files
from kapelle.core.agent import ProcessRef
from kapelle.core.errors import HostFailed
from kapelle.core.ports import Ended, Launch
from kapelle.testing.conformance.processes import PATIENCE, Lifeline, Stage, Started, read_to_end, read_until

LEADER = """
import asyncio, dataclasses, json, sys
from datetime import timedelta
from kapelle.adapters.hosts.local import LocalHost
from kapelle.core.ports import Launch

async def lead():
    folder, script, lifeline, limit = sys.argv[1:]
    launch = Launch(
        argv=("/bin/sh", "-c", script, "sh", lifeline), cwd=folder, env=(("PATH", "/usr/bin:/bin"),), stdin=True,
        limit=timedelta(seconds=float(limit)),
    )
    print(json.dumps(dataclasses.asdict(await LocalHost().start(launch, folder + "/agent"))), flush=True)
    await asyncio.Event().wait()

asyncio.run(lead())
"""
PROC = Path("/proc/self/fd").is_dir()
NOTHING_HELD = ("", "", "", "")
"""Control groups, open files, size of files, guard: as the shim takes them before the program."""
SHELLS = [
    shell
    for shell in (("sh",), ("dash",), ("bash",), ("bash", "--posix"), ("busybox", "sh"), ("ksh",), ("zsh", "--emulate", "sh"))
    if shutil.which(shell[0])
]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(host=LocalHost(), folder=tmp_path)
    yield stage
    await stage.clear()


async def killed_leader(folder: Path, script: str, *, limit: float = 1000) -> tuple[Started, Lifeline]:
    """Let a leader start an agent, kill it as the system does, and return what the next leader knows."""
    lifeline = Lifeline(folder / "lifeline")
    leader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEADER, str(folder), script, lifeline.path, str(limit), stdout=subprocess.PIPE
    )
    assert leader.stdout is not None
    async with asyncio.timeout(PATIENCE):
        reference = ProcessRef(**json.loads(await leader.stdout.readline()))
    leader.kill()
    await leader.wait()
    return Started(process=reference, folder=f"{folder}/agent"), lifeline


async def test_an_agent_goes_on_when_its_leader_is_killed_and_its_end_is_recorded(tmp_path: Path) -> None:
    found, lifeline = await killed_leader(tmp_path, 'exec 9>"$1"; echo up >&9; cat; echo went on; exit 17')
    await lifeline.cut()
    assert await read_to_end(LocalHost(), found) == (b"went on\n", Ended(exit_code=17))


async def test_the_next_leader_adopts_an_agent_and_ends_it(tmp_path: Path) -> None:
    found, lifeline = await killed_leader(tmp_path, 'exec 9>"$1"; echo up >&9; echo up; sleep 1000 & wait')
    host = LocalHost()
    await read_until(host, found, b"up\n")
    assert not await host.write(found.process, b"hello\n")
    await host.end(found.process, found.folder, grace=timedelta(seconds=0.2))
    assert await lifeline.cut() == "up\n"


async def test_the_time_limit_holds_with_no_leader_at_all(tmp_path: Path) -> None:
    found, lifeline = await killed_leader(tmp_path, 'exec 9>"$1"; echo up >&9; sleep 1000 & wait', limit=0.5)
    assert await lifeline.cut() == "up\n"
    _, ended = await read_to_end(LocalHost(), found)
    assert ended.timed_out


async def test_many_that_end_at_once_are_all_recorded(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        starting = [group.create_task(stage.start(f"echo {number}; exit {number}")) for number in range(40)]
    for number, task in enumerate(starting):
        data, ended = await read_to_end(stage.host, task.result())
        assert (data.decode(), ended) == (f"{number}\n", Ended(exit_code=number))


async def test_the_end_of_an_earlier_process_is_not_taken_for_that_of_a_later_one(stage: Stage) -> None:
    folder = stage.folder / "agent"
    first = await stage.start_launch(stage.launch("sleep 1000", limit=timedelta(seconds=0.2)), folder)
    _, ended = await read_to_end(stage.host, first)
    assert ended.timed_out
    second = await stage.start_launch(stage.launch("read line; exit 3", stdin=True), folder)
    assert (await stage.host.look(second.process, second.folder, 0)).ended is None
    await stage.host.write(second.process, b"\n")
    assert await read_to_end(stage.host, second) == (b"", Ended(exit_code=3))


async def test_a_folder_that_cannot_be_made_is_told(stage: Stage) -> None:
    (stage.folder / "file").write_text("in the way")
    with pytest.raises(HostFailed):
        await stage.start_launch(stage.launch("true"), stage.folder / "file" / "agent")
    with pytest.raises(HostFailed):
        await stage.host.run(stage.launch("true"), str(stage.folder / "file" / "log"))


async def test_what_an_agent_left_behind_has_no_hold_on_the_host(stage: Stage) -> None:
    """Descriptors are closed with the processes: a leader starts thousands."""
    counts = list[int]()
    for _ in range(5):
        found = await stage.start("cat", stdin=True)
        await stage.host.close_input(found.process)
        await read_to_end(stage.host, found)
        found = await stage.start("exit 0", stdin=True)
        await read_to_end(stage.host, found)
        found = await stage.start("cat", stdin=True)
        await stage.host.end(found.process, found.folder, grace=timedelta(seconds=5))
        counts.append(len(os.listdir("/proc/self/fd")) if PROC else 0)  # noqa: PTH208
    # What the host itself keeps open is there after the first.
    assert len(set(counts)) == 1


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_shim_writes_into_no_file_but_those_of_control_groups(tmp_path: Path, shell: tuple[str, ...]) -> None:
    """Arguments in another order than it takes them once emptied a program that was to be started."""
    (tmp_path / "program").write_text("#!/bin/sh\n")
    held = (str(tmp_path / "program"), "", "", "")
    command = [*shell, "-c", SHIM, "kapelle-shim", str(tmp_path), "100", *held, "/bin/true"]
    subprocess.run(command, capture_output=True, start_new_session=True, timeout=PATIENCE, check=False)
    assert (tmp_path / "program").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "exit").read_text() == "125"


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    ("script", "given", "code"), [("exit 7", b"", "7"), ("cat; exit 9", b"hello\n", "9"), ("kill -TERM $$", b"", "143")]
)
def test_the_shim_works_in_every_shell(tmp_path: Path, shell: tuple[str, ...], script: str, given: bytes, code: str) -> None:
    command = [*shell, "-c", SHIM, "kapelle-shim", str(tmp_path), "100", *NOTHING_HELD, "/bin/sh", "-c", script]
    result = subprocess.run(command, input=given, capture_output=True, start_new_session=True, timeout=PATIENCE, check=False)
    assert (tmp_path / "exit").read_text() == code
    assert (result.stdout, result.stderr) == (given, b"")
    assert not (tmp_path / "timed-out").exists()


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_time_limit_holds_in_every_shell(tmp_path: Path, shell: tuple[str, ...]) -> None:
    command = [*shell, "-c", SHIM, "kapelle-shim", str(tmp_path), "0.2", *NOTHING_HELD, "/bin/sh", "-c", "echo up; sleep 1000"]
    result = subprocess.run(command, capture_output=True, start_new_session=True, timeout=PATIENCE, check=False)
    assert (result.stdout, result.stderr) == (b"up\n", b"")
    assert (tmp_path / "timed-out").exists()


async def test_an_end_is_seen_also_where_the_spool_is_gone(tmp_path: Path) -> None:
    host = LocalHost()
    launch = Launch(argv=("/bin/sh", "-c", "read line"), cwd=str(tmp_path), env=(), stdin=True, limit=timedelta(minutes=1))
    found = await host.start(launch, str(tmp_path / "agent"))
    (tmp_path / "agent" / "spool").unlink()
    waiting = asyncio.ensure_future(host.wait(found, str(tmp_path / "agent"), 0))
    assert await host.write(found, b"go\n")
    await waiting
    assert (await host.look(found, str(tmp_path / "agent"), 0)).ended is not None


async def test_what_is_started_keeps_the_soft_limit_of_open_files_that_there_was(stage: Stage) -> None:
    """Programs that look at each number that a file could have would take long; and it may be raised again by who needs it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    launch = Launch(argv=("/bin/sh", "-c", "ulimit -S -n; ulimit -H -n"), cwd=str(stage.folder), env=(("PATH", os.defpath),))
    try:
        with many_files():
            said = await stage.host.run(launch, str(stage.folder / "said"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert said.tail.split() == ["200", "unlimited" if hard == resource.RLIM_INFINITY else str(hard)]
