"""A place for control groups, where a person's login has none: from the service manager that runs for every user.

    login session -----------> leader starts something: "give me a scope" --> kapelle.scope/leaders   leader
    (its group is root's)                                                     kapelle.scope/kapelle-STORE/KEY   agents

The group of a login session is not its user's, so no groups can be made below it. The user's service manager (``systemd
--user``) has a group that is, and gives a part of it away: a *scope* with ``Delegate=yes``, into which it moves who asks. That
needs no other process to be started, and happens in the life of a process at most once: when it starts something for the first
time. Who only looks is told what there would be.

There is one scope for all who lead on behalf of a user. It is there for as long as anything is in it, so it outlives a leader
that is killed, with its agents; the next leader, from whatever session, is attached to the same one. A group of version 2 with
processes in it hands down no controllers, which is why those who lead are in a group below it.

The service manager ends with its user's last login session (but for ``loginctl enable-linger``), and a session ends when
nothing is left in it. Who has left a session for the scope therefore leaves a process behind there that waits for its end: a
run goes on after a logout if it did so before.
"""

import os
import re
import socket
import stat
import struct
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kapelle.adapters.system import bus, hierarchies
from kapelle.adapters.system.hierarchies import CONTROLLERS, LEADERS, SCOPE
from kapelle.adapters.system.trusted import system_program

PATIENCE = 3.0
"""Seconds that a service manager may take for everything."""
LOOK = 0.002
"""Seconds between looks whether it has been done: it says yes before it does it."""
BETWEEN = 0.01
"""Seconds between tries, while another leader is on its way in, or the last thing in the scope is on its way out."""
EXISTS = "org.freedesktop.systemd1.UnitExists"
EVERYTHING = (1 << 64) - 1
"""As many processes as the user may have: what a login session may have, too."""
DELEGATED = "user.delegate"
"""What marks a group that was given away."""
MAIN = "SYSTEMD_EXEC_PID"
"""Who is this process was started by a service manager as a service: where that is to be, its unit says."""


@dataclass(frozen=True)
class Manager:
    """The service manager of the user that this process runs as."""

    sockets: tuple[tuple[Path, bool], ...]
    """Where it listens, the best first; and whether there is a bus between."""
    folder: Path
    """Its own group."""
    controllers: frozenset[str]
    """What it can hand down, of what limits need."""


@cache
def manager() -> Manager | None:
    """Return who can give a scope to this process, or None: that is looked at once, and asks for nothing."""
    if os.geteuid() == 0 or os.environ.get(MAIN) == str(os.getpid()) or _is_an_agents():
        return None
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}")
    there = [(runtime / "systemd" / "private", False), (runtime / "bus", True)]
    listening = [(path, greet, pid) for path, greet in there if (pid := listener(path)) is not None]
    for _, _, pid in listening:
        folder = _group_of(pid)
        if folder is not None:
            with suppress(OSError):
                sockets = tuple((path, greet) for path, greet, other in listening if other == pid)
                return Manager(sockets=sockets, folder=folder, controllers=_controllers(folder))
    return None


@dataclass(frozen=True)
class Offer:
    """A place for control groups that this process is not in yet, and may go to."""

    controllers: frozenset[str]
    words: str
    """Where that is, for people."""
    take: Callable[[], str]
    """Goes there, and returns why not; empty when it is there."""
    instead_of: Callable[[Collection[Path]], bool]
    """Says whether groups could be made in one of these folders, and should not: they are somebody else's."""


def offers() -> Iterator[Offer]:
    """Yield where this process may go, the nearest first; nobody is asked for anything."""
    own = hierarchies.own_second()
    with suppress(OSError):
        if own is not None and _is_given(own):
            yield Offer(
                controllers=_controllers(own),
                words="control groups in the one that was given to this service",
                take=lambda: go_below(own),
                instead_of=lambda folders: any(own != each and own.is_relative_to(each) for each in folders),
            )
    found = manager()
    if found is not None:
        yield Offer(
            controllers=found.controllers,
            words="control groups in a scope that systemd gives to your user when something is started",
            take=lambda: enter(found),
            instead_of=lambda folders: any(_is_managers(each, found) for each in folders),
        )


def enter(given: Manager) -> str:
    """Go into the scope that *given* gives, and return why not; empty when this process is in it."""
    try:
        waiting = None if _is_below(given.folder) else _leave_behind()
    except OSError as error:
        return f"nothing can be left in the login session: {error.strerror}"
    problem = _asked(given)
    if problem and waiting is not None:
        os.close(waiting[1])
        os.waitpid(waiting[0], 0)
    return problem


def go_below(group: Path) -> str:
    """Let all processes of *group* go into one below it, and return why not.

    A service with ``Delegate=yes`` is in the very group that was given to it, which can hand down nothing until it is empty.
    """
    try:
        (group / LEADERS).mkdir(exist_ok=True)
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (group / LEADERS / "cgroup.procs").write_text(pid)
    except OSError as error:
        return f"{group} cannot be used: {error.strerror}"
    return ""


def listener(path: Path) -> int | None:
    """Return the process of this user that listens at the socket *path*, or None when there is none."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            facts = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iii"))
    except (OSError, AttributeError):
        return None
    pid, uid, _ = struct.unpack("iii", facts)
    return pid if uid == os.geteuid() and pid > 0 else None


def managers_group(path: str, uid: int) -> str | None:
    """Return the group of the service manager of *uid*, given the one that its process is in; None when it is none."""
    found = re.match(rf"(.*/user@{uid}\.service)(/|$)", path)
    return found[1] if found else None


def _group_of(pid: int) -> Path | None:
    path = hierarchies.second_of(pid)
    above = managers_group(path, os.geteuid()) if path is not None else None
    return hierarchies.second_at(above) if above is not None else None


def _is_below(folder: Path) -> bool:
    own = hierarchies.own_second()
    return own is not None and own.is_relative_to(folder)


def _controllers(group: Path) -> frozenset[str]:
    return frozenset((group / "cgroup.controllers").read_text().split()) & set(CONTROLLERS.values())


def _is_given(group: Path) -> bool:
    """Say whether *group* was given to this user: it is marked so, or what is above it is somebody else's."""
    try:
        if os.geteuid() == 0 or group.stat().st_uid != os.geteuid():
            return False
        with suppress(OSError):
            return os.getxattr(group, DELEGATED) == b"1"
        return group.parent.stat().st_uid != os.geteuid()
    except OSError:
        # It is gone, or not to be looked at.
        return False


def _is_an_agents() -> bool:
    """Say whether this process is in the group of somebody's agent: it is to stay there."""
    own = hierarchies.own_second()
    return own is not None and any(part.startswith(hierarchies.PREFIX) for part in own.parts)


def _is_managers(folder: Path, found: Manager) -> bool:
    """Say whether *folder* is one of those that a service manager has for itself, as in a terminal of a desktop."""
    return folder.is_relative_to(found.folder) and SCOPE not in folder.parts and not _is_given(folder)


def _own_scope() -> Path | None:
    own = hierarchies.own_second()
    return next((each for each in (own, own.parent) if each.name == SCOPE), None) if own is not None else None


def _asked(given: Manager) -> str:
    """Ask until this process is in the scope; return why it is not."""
    until, problem = time.monotonic() + PATIENCE, "it takes too long"
    while time.monotonic() < until:
        try:
            there = _asked_at_one(given)
        except (bus.Refused, OSError, ValueError) as error:
            problem = str(error) or type(error).__name__
            break
        while there and time.monotonic() < until:
            if (scope := _own_scope()) is not None:
                return go_below(scope)
            time.sleep(LOOK)
        time.sleep(BETWEEN)
    return f"the service manager of the user gives no scope: {problem}"


def _asked_at_one(given: Manager) -> bool:
    """Ask where it listens, at the best place first; return False when the scope is there, and nobody can go into it just now.

    Raises:
        bus.Refused: it says no.
        OSError: it cannot be reached.
        ValueError: it is not understood.
    """
    first, *others = given.sockets
    try:
        return _ask(*first)
    except (bus.Refused, OSError, ValueError):
        if not others:
            raise
        return _ask(*others[0])


def _ask(path: Path, greet: bool) -> bool:
    try:
        bus.call(path, "StartTransientUnit", "ssa(sv)a(sa(sv))", new_scope(os.getpid()), greet=greet, patience=PATIENCE)
    except bus.Refused as refused:
        if refused.name != EXISTS:
            raise
        # Who has asked for it may be on its way in still, and what is in it may be on its way out.
        with suppress(bus.Refused):
            bus.call(path, "AttachProcessesToUnit", "ssau", attached(os.getpid()), greet=greet, patience=PATIENCE)
            return True
        return False
    return True


def new_scope(pid: int) -> bytes:
    """Return what is said to get a new scope with *pid* in it."""
    body = bus.Writer()
    body.text(SCOPE)
    body.text("fail")
    properties = body.begin(8)
    _property(body, "Description", "s").text("Kapelle: agents, and who leads them")
    pids = _property(body, "PIDs", "au")
    at = pids.begin(4)
    pids.uint32(pid)
    pids.end(at, 4)
    _property(body, "Delegate", "b").boolean(value=True)
    _property(body, "TasksMax", "t").uint64(EVERYTHING)
    _property(body, "CollectMode", "s").text("inactive-or-failed")
    body.end(properties, 8)
    others = body.begin(8)
    body.end(others, 8)
    return bytes(body.data)


def attached(pid: int) -> bytes:
    """Return what is said to get *pid* to those that lead in the scope that is there."""
    body = bus.Writer()
    body.text(SCOPE)
    body.text(f"/{LEADERS}")
    at = body.begin(4)
    body.uint32(pid)
    body.end(at, 4)
    return bytes(body.data)


def _property(body: bus.Writer, name: str, kind: str) -> bus.Writer:
    body.align(8)
    body.text(name)
    body.signature(kind)
    return body


def _leave_behind() -> tuple[int, int] | None:
    """Leave a process in the group that this one is in, until this one ends; return it, and what it waits at."""
    program = system_program("cat")
    if program is None:
        return None
    reading, writing = os.pipe()
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    pid = os.posix_spawn(program, ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0), *nowhere], setsid=True)
    os.close(reading)
    return pid, writing
