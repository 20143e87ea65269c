"""The process that stands for a container: it makes it, carries its input and output, and ends with its exit code.

It belongs to the process group of the agent or check, so the host starts, watches and ends it as any other, and it outlives the
leader. It is one for each agent, so it is small: the standard library and no more, blocking calls, and Docker's API spoken
by itself (aiodocker and what it needs take four times the memory; see docs/decisions/0015-containers.md). It is run as
a file, with ``-I -S``: it can import nothing else of Kapelle.

    create -> attach -> start -> [ input and output are copied, signals passed on ] -> end of output -> look -> remove -> exit

Should it be killed, the kernel closes its end of the lifeline, a named pipe; the first process of the container (``INIT``) sees
that and ends, and with it everything in the container. What is left then, and what was made and never started, is found by its
labels (``ContainerSandbox.clear`` and ``sweep``).
"""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

OWN = "/run/kapelle-container"
"""Where a container finds its first program and its lifeline."""
FAILED = 125
"""The exit code when there was no container to give one, as with docker and podman."""
PIECE = 1 << 16
FOUND, MADE, GOOD = 200, 201, 300
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NOW_AND_THEN = 500
"""Milliseconds without input and output after which it is looked what becomes of the limits."""
LOOKS, LOOK = 1000, 0.02
"""How often it is looked whether a container has ended whose output has, and seconds between."""
FIRST_LOOKS = 10
"""How often it is looked whether the first process of a container has begun to be that."""
FRAME, OF_ERRORS = 8, 2
"""Bytes that stand before each piece of output: which stream, three zeros, and how many follow."""
INIT = """
lifeline=$1; files=$2; blocks=$3; shift 3
[ -z "$files" ] || ulimit -n "$files" 2>/dev/null
[ -z "$blocks" ] || ulimit -f "$blocks" 2>/dev/null
exec 3<&0
trap 'exit 137' USR1
trap 'kill -TERM -1' TERM
trap 'kill -INT -1' INT
trap 'kill -HUP -1' HUP
( trap '' TERM INT HUP USR1; read -r nothing < "$lifeline"; kill -USR1 1 ) </dev/null >/dev/null 2>&1 3<&- &
"$@" <&3 3<&- &
child=$!
exec </dev/null >/dev/null 2>/dev/null 3<&-
while :; do
  wait $child
  code=$?
  kill -0 $child || break
done
wait $child
again=$?
[ $again = 127 ] || code=$again
exit $code
"""
"""The first process of a container. It passes signals on to all others (as a process group would have it), clears away those
that nobody waits for, and ends when the lifeline is cut. It lowers the limits that each process has for itself, which runtimes
with few rights may not set; one that is lower already stays. The exit code is asked for as by the shim of ``adapters.hosts``.
"""


class Failed(Exception):
    """The runtime cannot do what it was asked for."""


class Api:
    """Docker's API at one address: ``/path/of/a/socket`` or ``HOST:PORT``."""

    def __init__(self, address: str, patience: float | None = None) -> None:
        self._address = address
        self._patience = patience
        """Seconds that an answer may take; None: as long as it takes."""

    def connect(self) -> socket.socket:
        """Return a new connection."""
        try:
            if not self._address.startswith("/"):
                host, _, port = self._address.rpartition(":")
                return socket.create_connection((host.strip("[]"), int(port)), timeout=self._patience)
            return self._local()
        except OSError as error:
            raise Failed(f"{self._address} cannot be reached: {error.strerror or error}") from error

    def _local(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(self._patience)
            link.connect(self._address)
        except OSError:
            link.close()
            raise
        return link

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return the status and the JSON that the runtime answers with; None where that is none."""
        head, rest = self._answer(method, path, body)
        return _status(head), _json(rest)

    def version(self) -> str:
        """Return the version of the API that the runtime speaks: it says so at once, and all else takes it long."""
        head, _ = self._answer("GET", "/_ping")
        named = [line.split(b":", 1) for line in head.lower().splitlines() if line.startswith(b"api-version:")]
        if _status(head) != FOUND or not named:
            raise Failed(f"{self._address} is no container runtime's")
        return named[0][1].strip().decode()

    def _answer(self, method: str, path: str, body: Any = None) -> tuple[bytes, bytes]:
        data = b"" if body is None else json.dumps(body).encode()
        asked = f"{method} {path} HTTP/1.0\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        answer = bytearray()
        try:
            with self.connect() as link:
                link.sendall(asked.encode() + data)
                while piece := link.recv(PIECE):
                    answer += piece
        except OSError as error:
            raise Failed(f"{self._address} does not answer: {error}") from error
        head, _, rest = bytes(answer).partition(b"\r\n\r\n")
        return head, rest

    def attach(self, path: str) -> tuple[socket.socket, bytes]:
        """Return a connection that has become the container's input and output, and what came of the output already."""
        link = self.connect()
        link.sendall(
            f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = link.recv(PIECE)
            if not piece:
                break
            answer += piece
        head, _, rest = answer.partition(b"\r\n\r\n")
        if _status(head) not in {101, FOUND}:
            raise Failed(_reason(_json(rest)) or "the container cannot be attached to")
        return link, rest


def _status(head: bytes) -> int:
    try:
        return int(head.split(b" ", 2)[1])
    except (IndexError, ValueError):
        raise Failed("the container runtime gave no answer") from None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _reason(answer: Any) -> str:
    return str(answer.get("message", "")) if isinstance(answer, dict) else ""  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


class Container:
    """One container, from its making to its removal."""

    def __init__(self, spec: Any) -> None:
        self._spec = spec
        self._api = Api(spec["address"])
        self._name = str(spec["name"])
        self._group = Group(None, "")
        self._started = False
        self._out_of_memory = False
        self._asked: list[int] = []

    def run(self) -> int:
        """Make it, run it to its end and remove it; return its exit code."""
        for number in PASSED_ON:
            signal.signal(number, self._pass_on)
        for name in ("ended", "first", "met"):
            with suppress(FileNotFoundError):
                os.unlink(self._spec[name])
        lifeline = _lifeline(self._spec["lifeline"], self._spec["owner"])
        self._group = Group(self._spec["group"], self._spec["met"])
        self._make()
        try:
            code = self._run()
        finally:
            self._remove()
        self._tell(self._group.said(self._out_of_memory))
        os.close(lifeline)
        return code

    def _tell(self, what: str) -> None:
        """Write down that nothing is left, for whoever clears up, and what is to be said."""
        _write_whole(self._spec["ended"], what)

    def _make(self) -> None:
        given = {name: os.environ[name] for name in self._spec["env"] if name in os.environ}
        body = {**self._spec["create"], "Env": [f"{name}={value}" for name, value in given.items()]}
        status, answer = self._api.ask("POST", f"/containers/create?name={self._name}", body)
        if status != MADE and self._remove():
            # Of that name there was one already, of a runner that was killed. (Each runtime has its own status for that.)
            status, answer = self._api.ask("POST", f"/containers/create?name={self._name}", body)
        if status != MADE:
            raise Failed(_reason(answer) or f"the container cannot be made ({status})")

    def _run(self) -> int:
        stdin = "1" if self._spec["stdin"] else "0"
        link, begun = self._api.attach(f"/containers/{self._name}/attach?stream=1&stdin={stdin}&stdout=1&stderr=1")
        with link:
            if self._asked:
                return 128 + self._asked[0]
            status, answer = self._api.ask("POST", f"/containers/{self._name}/start")
            if status >= GOOD:
                raise Failed(_reason(answer) or f"the container cannot be started ({status})")
            self._started = True
            for number in self._asked:
                self._kill(number)
            if not self._group.watched:
                self._name_first()
            self._group.look()
            copy(link, begun, stdin=self._spec["stdin"], group=self._group)
        self._group.look()
        return self._code()

    def _name_first(self) -> None:
        """Write down which process everything in the container is below, for the guard that looks on from outside."""
        pid = int(self._state(wait=False).get("Pid") or 0)
        for _ in range(FIRST_LOOKS if pid else 0):
            if is_first(pid):
                _write_whole(self._spec["first"], str(pid))
                return
            # It is about to become that, or belongs to another machine, of which nothing is to be seen here.
            select.select([], [], [], LOOK)

    def _code(self) -> int:
        """Return the exit code, which is known soon after the output has ended."""
        state = self._state()
        if state.get("Running"):
            # The connection broke: nobody could hear what it says any more.
            self._api.ask("POST", f"/containers/{self._name}/kill?signal=KILL")
            raise Failed("the container runtime has closed the connection to the container, which was ended for that")
        self._out_of_memory = bool(state.get("OOMKilled"))
        return int(state.get("ExitCode", FAILED))

    def _state(self, *, wait: bool = True) -> Any:
        waited = 0 if wait else LOOKS
        while True:
            status, answer = self._api.ask("GET", f"/containers/{self._name}/json")
            if status != FOUND:
                raise Failed(_reason(answer) or "the container is gone")
            state = answer["State"]
            if not state.get("Running") or waited >= LOOKS:
                return state
            waited += 1
            select.select([], [], [], LOOK)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._started:
            self._kill(number)
        else:
            self._asked.append(number)

    def _kill(self, number: int) -> None:
        # It may have ended meanwhile; and where the runtime cannot be reached, the lifeline is cut a moment later.
        with suppress(Failed):
            self._api.ask("POST", f"/containers/{self._name}/kill?signal={signal.Signals(number).name}")

    def _remove(self) -> bool:
        """Remove it, with all that runs in it; say whether there was one."""
        return self._api.ask("DELETE", f"/containers/{self._name}?force=1&v=1")[0] < GOOD


def is_first(pid: int) -> bool:
    """Say whether *pid* is, on this machine, the first process of a container of ours."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return f"{OWN}/init".encode() in stream.read().split(b"\0")
    except OSError:
        return False


def _write_whole(path: str, text: str) -> None:
    fresh = f"{path}.new"
    with open(fresh, "w", encoding="ascii") as stream:
        stream.write(text)
    os.replace(fresh, path)


def _lifeline(path: str, owner: int) -> int:
    """Make a named pipe and hold its writing end, as nobody else does: who reads it comes to its end when this process does."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    os.mkfifo(path, 0o600)
    held = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    # From inside it can be read, and not be held open.
    os.fchmod(held, 0o400)
    if owner != os.geteuid():
        os.fchown(held, owner, owner)
    return held


class Group:
    """Cgroups of our own round the container's: what becomes of its limits is learned from them, and not from the runtime.

    That something was ended for want of memory, the kernel tells whoever asked before. That no further process could be started
    is counted in the container's own group, which goes with it, and of which this kernel tells nobody: it is looked at now and
    then, and whenever something was said (what could start nothing mostly says so). With Docker the group is gone before the
    end of the output is heard of.
    """

    def __init__(self, spec: Any, met: str) -> None:
        self._spec = spec
        self._met = met
        self._events: int | None = None
        self._full = self._out_of_memory = False
        if spec is not None and spec["limits"]:
            self._watch_memory(spec["memory"], spec["limits"])

    def _watch_memory(self, folder: str, limits: list[list[str]]) -> None:
        os.makedirs(folder, exist_ok=True)
        for name, value in limits:
            # Without swap there is no file for a limit of it.
            if os.path.exists(f"{folder}/{name}"):
                _put(f"{folder}/{name}", value)
        self._events = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        control = os.open(f"{folder}/memory.oom_control", os.O_RDONLY)
        _put(f"{folder}/cgroup.event_control", f"{self._events} {control}")
        os.close(control)

    @property
    def watched(self) -> bool:
        """Whether it must be looked at now and then."""
        return self._spec is not None

    def look(self) -> None:
        """See whether the container could start no further process, and show who its processes are."""
        if self._spec is None:
            return
        before = self._full, self._out_of_memory
        self._count()
        if (self._full, self._out_of_memory) != before:
            _write_whole(self._met, self.said(self._out_of_memory))

    def _count(self) -> None:
        if self._events is not None:
            with suppress(BlockingIOError):
                self._out_of_memory = os.eventfd_read(self._events) > 0 or self._out_of_memory
        with suppress(OSError):
            for name in os.listdir(str(self._spec["pids"])):
                # Podman's own part of it is in there, too.
                folder = f"{self._spec['pids']}/{name}"
                if "conmon" in name or not os.path.isdir(folder):
                    continue
                if not os.path.lexists(self._spec["members"]):
                    os.symlink(f"{folder}/cgroup.procs", self._spec["members"])
                with open(f"{folder}/pids.events", encoding="ascii") as stream:
                    self._full = self._full or any(int(line.split()[1]) for line in stream if line.startswith("max "))

    def said(self, out_of_memory: bool) -> str:
        """Return what is to be said of the container, each in a line; *out_of_memory* is what its runtime says."""
        if self._events is not None:
            self._count()
            out_of_memory = self._out_of_memory
        return "out of memory\n" * out_of_memory + "pids\n" * self._full


def _put(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as stream:
        stream.write(value)


def copy(link: socket.socket, begun: bytes, *, stdin: bool, group: Group) -> None:
    """Carry input in and output out until the output has ended; look at *group* now and then."""
    frames = Frames(_write)
    frames.feed(begun)
    link.setblocking(False)
    poll = select.poll()
    rest = b""
    poll.register(link, select.POLLIN)
    if stdin:
        poll.register(0, select.POLLIN)
    while True:
        ready = poll.poll(NOW_AND_THEN if group.watched else None)
        group.look()
        for handle, _ in ready:
            if handle == 0:
                rest = os.read(0, PIECE)
                poll.unregister(0)
                if rest:
                    # No more is read than the container takes.
                    poll.modify(link, select.POLLIN | select.POLLOUT)
                else:
                    link.shutdown(socket.SHUT_WR)
                continue
            if rest:
                rest = rest[_send(link, rest) :]
                if not rest:
                    poll.modify(link, select.POLLIN)
                    poll.register(0, select.POLLIN)
            try:
                data = link.recv(PIECE)
            except BlockingIOError:
                continue
            except ConnectionError:
                return
            if not data:
                return
            frames.feed(data)


def _send(link: socket.socket, data: bytes) -> int:
    try:
        return link.send(data)
    except BlockingIOError:
        return 0
    except OSError:
        # It takes no more input; its output may go on.
        return len(data)


def _write(stream: int, data: memoryview) -> None:
    while data:
        data = data[os.write(stream, data) :]


class Frames:
    """The output of a container as its API gives it: pieces of both streams, each with a head, cut anywhere."""

    def __init__(self, write: Callable[[int, memoryview], None]) -> None:
        self._write = write
        self._head = bytearray()
        self._stream = 1
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        rest = memoryview(data)
        while rest:
            if self._left:
                piece = rest[: self._left]
                self._write(self._stream, piece)
                self._left -= len(piece)
                rest = rest[len(piece) :]
                continue
            missing = FRAME - len(self._head)
            self._head += rest[:missing]
            rest = rest[missing:]
            if len(self._head) == FRAME:
                self._stream = OF_ERRORS if self._head[0] == OF_ERRORS else 1
                self._left = int.from_bytes(self._head[4:], "big")
                self._head.clear()


def main() -> int:
    """Run the container that the file named by the first argument describes."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        spec = json.load(stream)
    try:
        return Container(spec).run()
    except (Failed, OSError) as error:
        sys.stderr.write(f"kapelle: {error}\n")
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
