"""Commands from a prepared process: each in a process of its own, which has loaded everything already.

Most of the time that a short command takes goes into starting Python and loading modules. A prepared process does so once, and
is forked for each command: what the command does, and sees of the machine, is the same. Where one is to start from nothing
(what it loads and how long it takes, the encoding of its streams), use a process of its own.
"""

import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import selectors
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from kapelle.core.frozen import frozen

LENGTH = struct.Struct("!I")
PIECE = 1 << 16
NOT_LOADED = frozenset({"__main__", "migrations", "container.image"})
"""Modules that do something when they are loaded, or belong to another program."""


@frozen
class Output:
    """What a command said, and how it ended."""

    code: int
    """Its exit code; negative when a signal ended it."""
    out: bytes
    err: bytes


class PreparedCommands:
    """Runs commands from a prepared process, which ends with this one."""

    def __init__(self) -> None:
        self._asking: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, arguments: Sequence[str | bytes], *, cwd: Path, env: Mapping[str, str], seconds: int | None = None) -> Output:
        """Run ``kapelle`` with *arguments* to its end; it may compute for so many *seconds*.

        Raises:
            ConnectionError: the prepared process has ended.
        """
        pipes = [os.pipe() for _ in range(3)]
        body = {
            "argv": [os.fsdecode(argument) for argument in arguments],
            "cwd": str(cwd),
            "env": dict(env),
            "seconds": seconds,
        }
        data = json.dumps(body).encode()
        try:
            asking = self._asked()
            socket.send_fds(asking, [LENGTH.pack(len(data))], [inner for _, inner in pipes])
            asking.sendall(data)
        finally:
            for _, inner in pipes:
                os.close(inner)
        out, err, code = _read_all([outer for outer, _ in pipes])
        if not code:
            raise ConnectionError("the prepared process has ended")
        return Output(code=int(code), out=out, err=err)

    def close(self) -> None:
        """End the prepared process; no effect when there is none."""
        if self._asking is not None and self._process is not None:
            self._asking.close()
            self._process.wait()
            self._asking = self._process = None

    def _asked(self) -> socket.socket:
        if self._asking is None:
            ours, theirs = socket.socketpair()
            with theirs:
                number = theirs.fileno()
                # No setting of whoever tests: each command brings its own.
                env = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
                self._process = subprocess.Popen([sys.executable, "-m", __name__, str(number)], pass_fds=(number,), env=env)
            self._asking = ours
        return self._asking


def _read_all(handles: Sequence[int]) -> list[bytes]:
    """Read *handles* to their ends, all at once, and close them."""
    found = {handle: bytearray() for handle in handles}
    with selectors.DefaultSelector() as selector:
        for handle in handles:
            selector.register(handle, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                piece = os.read(key.fd, PIECE)
                found[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return [bytes(found[handle]) for handle in handles]


# --- The prepared process ---


def _serve(asking: socket.socket) -> None:
    """Fork for each command that is asked for, until nobody can ask any more; return in the process of a command."""
    while True:
        head, handles, _, _ = socket.recv_fds(asking, LENGTH.size, 3)
        if not head:
            sys.exit()
        data = _exactly(asking, LENGTH.unpack(head)[0])
        watcher = os.fork()
        if watcher == 0:
            asking.close()
            return _watched(json.loads(data), *handles)
        for handle in handles:
            os.close(handle)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _exactly(asking: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += asking.recv(length - len(data))
    return data


def _watched(body: dict[str, object], out: int, err: int, told: int) -> None:
    """Return in the process of the command; this one waits for that and tells how it ended."""
    command = os.fork()
    if command == 0:
        os.close(told)
        return _become(body, out, err)
    for handle in (out, err):
        os.close(handle)
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    os.write(told, str(code).encode())
    os._exit(0)


def _become(body: dict[str, object], out: int, err: int) -> None:
    for number, handle in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, err)):
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin, sys.stdout, sys.stderr = (_stream(number) for number in range(3))
    os.environ.clear()
    os.environ.update(dict(body["env"]))  # pyright: ignore[reportArgumentType, reportCallIssue]  # as it was sent
    os.chdir(str(body["cwd"]))
    if isinstance(seconds := body["seconds"], int):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    sys.argv = ["kapelle", *list(body["argv"])]  # pyright: ignore[reportArgumentType, reportCallIssue]  # as it was sent


def _stream(number: int) -> TextIOWrapper:
    return TextIOWrapper(
        os.fdopen(number, "rb" if number == 0 else "wb"),
        encoding="utf-8",
        errors="backslashreplace" if number == 2 else "strict",
    )


def _load() -> None:
    """Load every module that a command may want."""
    for module in pkgutil.walk_packages(importlib.import_module("kapelle").__path__, "kapelle."):
        if not any(name in module.name for name in (*NOT_LOADED, "kapelle.testing")):
            importlib.import_module(module.name)
    gc.collect()
    # What is loaded is shared by all, as long as nobody looks through it for garbage.
    gc.freeze()


def _main() -> NoReturn:
    with socket.socket(fileno=int(sys.argv[1])) as asking:
        try:
            _load()
            _serve(asking)
        except KeyboardInterrupt:
            sys.exit(130)
    code = 0
    try:
        runpy.run_module("kapelle", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    for stream in (sys.stdout, sys.stderr):
        # One that the command has closed.
        with suppress(ValueError):
            stream.flush()
    # Taking apart what was loaded takes longer than most commands.
    os._exit(code)


if __name__ == "__main__":
    _main()
