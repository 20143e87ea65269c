"""Groups in a login session: from a real service manager of a user."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kapelle.adapters.system.cgroups import counted
from kapelle.testing.managers import USER, UserManager

LEADER = Path(__file__).with_name("logged_in.py")
AGENT = "echo up > up; setsid env -i /bin/sleep 1000 & exec sleep 1000"
"""With something that left its process group, and threw away its environment."""


class LoggedIn:
    """A leader in a login session."""

    def __init__(self, manager: UserManager, folder: Path, session: str) -> None:
        self.manager = manager
        argv = manager.in_session([sys.executable, str(LEADER), str(folder), f"s{os.getpid()}"], session)
        self.process = subprocess.Popen(argv, env=manager.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, what: str, *args: Any, **options: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, args, options]).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def die(self) -> None:
        """As by kill -9."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def logs_in(manager: UserManager) -> Iterator[Callable[[str], LoggedIn]]:
    there: list[LoggedIn] = []
    with manager.home() as folder:

        def log_in(session: str) -> LoggedIn:
            there.append(LoggedIn(manager, folder, session))
            return there[-1]

        yield log_in
        for entry in there:
            if entry.process.poll() is None:
                entry.ask("sweep")
                entry.die()


def group_of(manager: UserManager, pid: int) -> Path:
    (line,) = [line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    return manager.outside(line.removeprefix("0::"))


def scope(manager: UserManager) -> Path:
    return manager.outside(str(manager.folder.relative_to("/sys/fs/cgroup") / "app.slice" / "kapelle.scope"))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  # the kernel tells nobody
            await asyncio.sleep(0.002)


def test_who_only_looks_stays_where_they_are(logs_in: Callable[[str], LoggedIn], manager: UserManager) -> None:
    found = logs_in("session-1.scope").ask("where")
    assert found["group"].endswith("/session-1.scope")
    assert found["manager"] == str(manager.folder)
    assert found["ends_all"] is True
    assert not scope(manager).exists()


async def test_who_starts_something_gets_a_scope_and_what_is_started_is_ended_whole(
    logs_in: Callable[[str], LoggedIn], manager: UserManager
) -> None:
    leader = logs_in("session-1.scope")
    leader.ask("start", "a-1", AGENT)
    found = leader.ask("where")
    assert found["refused"] == ""
    assert group_of(manager, found["pid"]) == scope(manager) / "leaders"
    assert (scope(manager) / "cgroup.procs").read_text() == ""
    await until(lambda: len(leader.ask("inside", "a-1")) == 2)
    inside = leader.ask("inside", "a-1")
    leader.ask("freeze", "a-1")
    group = group_of(manager, inside[0])
    assert group.parent.parent == scope(manager)
    assert counted(group, "frozen", ("cgroup.events",)) == 1
    leader.ask("thaw", "a-1")
    leader.ask("clear", "a-1")
    assert leader.ask("inside", "a-1") == []
    assert not group.exists()


async def test_the_next_leader_in_another_session_is_in_the_same_scope(
    logs_in: Callable[[str], LoggedIn], manager: UserManager
) -> None:
    first = logs_in("session-1.scope")
    first.ask("start", "a-1", AGENT)
    await until(lambda: len(first.ask("inside", "a-1")) == 2)
    agents = first.ask("inside", "a-1")
    first.ask("freeze", "a-1")
    group = group_of(manager, agents[0])
    first.die()
    assert counted(group, "frozen", ("cgroup.events",)) == 1

    second = logs_in("session-2.scope")
    # Before it has started anything, it finds what is there from where it is.
    assert sorted(second.ask("inside", "a-1")) == sorted(agents)
    second.ask("thaw", "a-1")
    await until(lambda: counted(group, "frozen", ("cgroup.events",)) == 0)
    second.ask("start", "a-2", AGENT)
    found = second.ask("where")
    assert found["refused"] == ""
    assert group_of(manager, found["pid"]) == scope(manager) / "leaders"
    assert second.ask("sweep", "a-2") == ["a-1"]
    assert not group.exists()


async def test_two_who_begin_at_once_are_both_in(logs_in: Callable[[str], LoggedIn], manager: UserManager) -> None:
    both = [logs_in(session) for session in ("session-1.scope", "session-2.scope")]
    async with asyncio.TaskGroup() as group:
        for at, each in enumerate(both):
            group.create_task(asyncio.to_thread(each.ask, "start", f"a-{at}", AGENT))
    for each in both:
        found = each.ask("where")
        assert found["refused"] == ""
        assert group_of(manager, found["pid"]) == scope(manager) / "leaders"


async def test_a_session_is_there_for_as_long_as_who_left_it_for_the_scope(
    logs_in: Callable[[str], LoggedIn], manager: UserManager
) -> None:
    leader = logs_in("session-1.scope")
    session = manager.outside(str(manager.slice.relative_to("/sys/fs/cgroup") / "session-1.scope"))
    leader.ask("start", "a-1", "true")
    assert counted(session, "populated", ("cgroup.events",)) == 1
    leader.ask("clear", "a-1")
    leader.die()
    await until(lambda: counted(session, "populated", ("cgroup.events",)) == 0)


async def test_nothing_of_a_scope_is_left_when_nobody_is_in_it(
    logs_in: Callable[[str], LoggedIn], manager: UserManager
) -> None:
    leader = logs_in("session-1.scope")
    leader.ask("start", "a-1", "true")
    assert scope(manager).exists()
    leader.ask("clear", "a-1")
    leader.die()
    await until(lambda: not scope(manager).exists())


def test_a_terminal_of_a_desktop_has_a_group_of_the_managers_which_is_left_to_it(
    logs_in: Callable[[str], LoggedIn], manager: UserManager
) -> None:
    # Groups could be made there, and it would not know of them.
    name = f"{manager.folder.name}/terminal.scope"
    terminal = manager.outside(str(manager.slice.relative_to("/sys/fs/cgroup"))) / name
    terminal.mkdir()
    for path in (terminal, terminal / "cgroup.procs", terminal / "cgroup.subtree_control"):
        os.chown(path, USER, USER)
    leader = logs_in(name)
    leader.ask("start", "a-1", AGENT)
    found = leader.ask("where")
    assert group_of(manager, found["pid"]) == scope(manager) / "leaders"
    # There is no session that it would have to keep.
    assert (terminal / "cgroup.procs").read_text() == ""
    terminal.rmdir()


def test_what_belongs_to_somebody_else_is_left_to_them(logs_in: Callable[[str], LoggedIn], manager: UserManager) -> None:
    group = manager.outside(str(manager.slice.relative_to("/sys/fs/cgroup"))) / f"kapelle-s{os.getpid()}" / "a-1"
    group.mkdir(parents=True)
    try:
        assert logs_in("session-1.scope").ask("sweep") == []
    finally:
        group.rmdir()
        group.parent.rmdir()


def test_what_is_held_is_what_was_promised(logs_in: Callable[[str], LoggedIn], manager: UserManager) -> None:
    # Where version 1 has the controllers, none are promised, and nothing starts that needs one.
    leader = logs_in("session-1.scope")
    promised = leader.ask("where")["limits"]
    answer = leader.ask("start", "a-1", "exec sleep 1000", cpus=0.5)
    if "cpus" not in promised:
        assert answer["error"].startswith("limits of cpus cannot be held: ")
        return
    (inside,) = leader.ask("inside", "a-1")
    assert (group_of(manager, inside) / "cpu.max").read_text() == "50000 100000\n"
