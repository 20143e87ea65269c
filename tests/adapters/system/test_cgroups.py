import os
from pathlib import Path

import pytest

from kapelle.adapters.system.cgroups import ControlGroups, Hierarchy, counted, here, seen_at, unescaped
from kapelle.core.isolation import ProcessLimits

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
