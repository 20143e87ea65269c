import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kapelle.adapters.system.cgroups import ControlGroups, counted, here
from kapelle.adapters.system.hierarchies import Hierarchy, seen_at, unescaped
from kapelle.core.errors import NotStill
from kapelle.core.isolation import ProcessLimits, Remains

LIMITS = ProcessLimits(memory=1000, cpus=0.5, pids=7, disk=1, files=99)


@pytest.fixture
def second(tmp_path: Path) -> ControlGroups:
    """Give a tree of directories that looks as version 2 does: machines with both versions are rare."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tree / "cgroup.subtree_control").write_text("memory\n")
    everything = frozenset({"cpu", "memory", "pids"})
    (tree / "kapelle-s").mkdir()
    (tree / "kapelle-s" / "cgroup.subtree_control").write_text("")
    return ControlGroups([Hierarchy(version=2, folder=tree, controllers=everything)])


def test_limits_are_written_as_version_2_wants_them(second: ControlGroups) -> None:
    (group,) = second.make("s", "a/1", LIMITS)
    assert group == second.hierarchies[0].folder / "kapelle-s" / "a-1"
    written = {path.name: path.read_text() for path in group.iterdir()}
    assert written == {"memory.max": "1000", "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "7"}


def test_controllers_are_handed_down_before_a_group_is_made(second: ControlGroups) -> None:
    second.make("s", "a", LIMITS)
    assert (second.hierarchies[0].folder / "cgroup.subtree_control").read_text() == "+cpu +pids"
    assert (second.hierarchies[0].folder / "kapelle-s" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_nothing_is_handed_down_for_who_has_no_limits(second: ControlGroups) -> None:
    (group,) = second.make("s", "a", ProcessLimits())
    assert list(group.iterdir()) == []
    assert (second.hierarchies[0].folder / "cgroup.subtree_control").read_text() == "memory\n"


def test_what_version_2_counted_is_told(second: ControlGroups) -> None:
    (group,) = second.make("s", "a", ProcessLimits())
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n")
    (group / "pids.events").write_text("max 0\n")
    assert counted(group, "oom_kill") == 1  # a file cannot be read as the kernel's
    assert counted(group, "max", ("pids.events",)) == 0


def test_all_that_is_made_by_trying_is_gone() -> None:
    found = here().hierarchies
    left = [path for each in found for path in each.folder.glob(f"kapelle-probe-{os.getpid()}*")]
    assert left == []


def test_paths_of_mounts_may_hold_anything() -> None:
    assert unescaped(r"/a\040b\134c") == "/a b\\c"


def test_a_group_is_seen_where_the_mount_begins() -> None:
    fields = ["30", "24", "0:27", "/docker/abc", "/sys/fs/cgroup/memory"]
    assert seen_at(fields, "/docker/abc/inner") == Path("/sys/fs/cgroup/memory/inner")
    assert seen_at(fields, "/docker/abc") == Path("/sys/fs/cgroup/memory")


@pytest.fixture
def another() -> Iterator[Hierarchy]:
    """Give a tree in which an earlier leader may have made its groups: it is not below the group that this process is in."""
    own = next((each for each in here().hierarchies if each.version == 2), None)
    if own is None:
        pytest.skip("version 2 of control groups is not to be had here")
    folder = own.folder / f"another-session-{os.getpid()}"
    folder.mkdir()
    yield replace(own, folder=folder)
    folder.rmdir()


@pytest.fixture
def store_id() -> str:
    return f"test{os.getpid()}"


@pytest.fixture
def left(another: Hierarchy, store_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that an earlier leader has left in a group of its own."""
    (group,) = ControlGroups([another]).make(store_id, "a-1", ProcessLimits())
    process = subprocess.Popen(["/bin/sleep", "1000"])
    (group / "cgroup.procs").write_text(str(process.pid))
    yield process
    process.kill()
    process.wait()
    with suppress(OSError):
        group.rmdir()
    with suppress(OSError):
        group.parent.rmdir()


def is_frozen(process: subprocess.Popen[bytes], another: Hierarchy, store_id: str) -> bool:
    assert process.poll() is None
    return counted(another.group(store_id, "a-1"), "frozen", ("cgroup.events",)) == 1


async def test_what_a_leader_of_another_session_has_frozen_is_let_go(
    another: Hierarchy, left: subprocess.Popen[bytes], store_id: str
) -> None:
    assert await ControlGroups([another]).freeze(store_id, "a-1")
    assert is_frozen(left, another, store_id)
    assert here().thaw(store_id, "a-1")
    group = another.group(store_id, "a-1")
    async with asyncio.timeout(10):
        while is_frozen(left, another, store_id):  # noqa: ASYNC110  # the kernel tells nobody
            await asyncio.sleep(0.001)
    assert group.is_dir()


async def test_what_lies_in_another_session_is_found_held_still_and_cleared(
    another: Hierarchy, left: subprocess.Popen[bytes], store_id: str
) -> None:
    groups = here()
    assert groups.inside(store_id, ["a-1"]) == [left.pid]
    assert groups.leftovers(store_id, ()) == ["a-1"]
    assert groups.leftovers(store_id, ["a-1"]) == []
    assert await groups.freeze(store_id, "a-1")
    assert is_frozen(left, another, store_id)
    assert await groups.clear(store_id, "a-1") == Remains()
    assert left.wait() == -signal.SIGKILL
    assert list(another.folder.glob("kapelle-*")) == []


async def test_what_nobody_stands_for_is_swept_in_another_session_too(
    another: Hierarchy, left: subprocess.Popen[bytes], store_id: str
) -> None:
    # Nothing is in this one any more, so no process leads to it.
    ControlGroups([another]).make(store_id, "a-0", ProcessLimits())
    assert await here().sweep(store_id, ["a-1"]) == ["a-0"]
    assert left.poll() is None
    assert await here().sweep(store_id, ()) == ["a-1"]
    assert left.wait() == -signal.SIGKILL
    assert list(another.folder.glob("kapelle-*")) == []


async def test_who_can_make_no_groups_finds_those_that_are_there(left: subprocess.Popen[bytes], store_id: str) -> None:
    none = ControlGroups([])
    assert await none.freeze(store_id, "a-1")
    assert none.thaw(store_id, "a-1")
    assert none.inside(store_id, ["a-1"]) == [left.pid]
    assert await none.sweep(store_id, ()) == ["a-1"]
    assert left.wait() == -signal.SIGKILL


DISKS = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""Where programs for disks are found: not everybody looks there."""


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Path]:
    """Give a directory on a disk that answers nobody."""
    image, point = tmp_path / "image", tmp_path / "point"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(20_000_000)
    path = DISKS
    for argv in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, point], ["fsfreeze", "-f", point]):
        if shutil.which(str(argv[0]), path=path) is None or os.geteuid() != 0:
            pytest.skip(f"{argv[0]} is not to be had here")
        subprocess.run(argv, check=True, env={"PATH": path})
    try:
        yield point
    finally:
        answer(point)
        subprocess.run(["umount", point], check=True, env={"PATH": path})


def answer(disk: Path) -> None:
    """Let a disk answer; no effect on one that does."""
    subprocess.run(["fsfreeze", "-u", disk], check=False, capture_output=True, env={"PATH": DISKS})


def started_in(group: Path, script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sh", "-c", f"echo 0 > '{group}/cgroup.procs'; {script}"])


async def waits(process: subprocess.Popen[bytes]) -> None:
    """Return when *process* waits for the disk, and not for what everybody waits for now and then."""
    looks = 0
    async with asyncio.timeout(10):
        while looks < 50:
            looks = looks + 1 if psutil.Process(process.pid).status() == psutil.STATUS_DISK_SLEEP else 0
            await asyncio.sleep(0.001)


@pytest.mark.soak
async def test_what_waits_for_a_disk_does_not_stand_still_and_can_be_tried_again(stuck: Path, store_id: str) -> None:
    """Soak: it takes a loop device, and the five seconds that are waited."""
    groups = here()
    group = groups.make(store_id, "a-1", ProcessLimits())[0]
    writer = started_in(group, f"echo x > '{stuck}/x'")
    other = started_in(group, "exec sleep 1000")
    try:
        await waits(writer)
        with pytest.raises(NotStill):
            await groups.freeze(store_id, "a-1")
        assert counted(group, "frozen", ("cgroup.events",)) == 0
        answer(stuck)
        assert writer.wait() == 0
        assert await groups.freeze(store_id, "a-1")
    finally:
        answer(stuck)
        await groups.clear(store_id, "a-1")
        for process in (writer, other):
            process.wait()
