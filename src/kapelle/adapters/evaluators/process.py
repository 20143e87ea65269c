"""Evaluating in processes that are killed when they take too long.

They are started when there is first something to evaluate, kept for the next time, and thrown away after anything that went
wrong. Each ends by itself when its input ends, which is what happens when the leader is killed.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from threading import Lock
from typing import Any

from kapelle.adapters.evaluators.wire import HEAD, READY, Question, framed, unframe
from kapelle.core.errors import HostFailed, PatternFailed, TemplateFailed
from kapelle.core.evaluating import LIMIT_S
from kapelle.core.limits import LONGEST_RESULT
from kapelle.core.template import Scope, looked_up

START_S = 20.0
"""Seconds that the process may take to start: the machine may be busy."""
KEPT = 2
"""Idle processes that are kept."""
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
# A pattern without any of these is found where it stands.
_SPECIAL = frozenset(".^$*+?{}[]\\|()")
_CHUNK = 1 << 16


class _Overran(Exception):
    """It took longer than it may."""


class _Died(Exception):
    """Its process ended: too much memory, most likely."""


class _Child:
    """One process."""

    def __init__(self) -> None:
        # Not the module of that name in the current directory, and none of the leader's secrets.
        argv = [sys.executable, "-P", "-m", "kapelle.adapters.evaluators.child"]
        env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            # A session of its own: Ctrl-C is the leader's to answer.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=env,
                cwd="/",
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise HostFailed(f"no process for evaluating can be started: {error.strerror}") from error
        self._in, self._out = _pipe(self._process.stdin), _pipe(self._process.stdout)
        try:
            if self._read(time.monotonic() + START_S) != READY:
                raise HostFailed("the process for evaluating says something else than that it is ready")
        except (_Overran, _Died) as error:
            self.end()
            raise HostFailed("the process for evaluating does not come up") from error

    def ask(self, data: bytes) -> bytes:
        """Return the answer to *data*."""
        deadline = time.monotonic() + LIMIT_S
        rest = memoryview(framed(data))
        while rest:
            _wait(self._in, select.POLLOUT, deadline)
            try:
                rest = rest[os.write(self._in, rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise _Died from error
        return self._read(deadline)

    def _read(self, deadline: float) -> bytes:
        def read(size: int) -> bytes:
            parts: list[bytes] = []
            while size:
                _wait(self._out, select.POLLIN, deadline)
                part = os.read(self._out, min(size, _CHUNK))
                if not part:
                    raise _Died
                parts.append(part)
                size -= len(part)
            return b"".join(parts)

        return unframe(read) or b""

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def end(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def _pipe(stream: Any) -> int:
    handle = int(stream.fileno())
    os.set_blocking(handle, False)
    return handle


def _wait(handle: int, what: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(handle, what)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise _Overran


class ProcessEvaluator:
    """See ``core.evaluating.Evaluator``."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: list[_Child] = []
        self._closings = 0

    def render(self, text: str, scope: Scope) -> str:
        known = looked_up(text, scope.names())
        if known is not None:
            return known
        what = f"the prompt of task {scope.task} cannot be rendered"
        return str(self._template({"what": "render", "text": text, "scope": asdict(scope)}, what))

    def holds(self, expression: str, scope: Scope) -> bool:
        what = f"the condition of task {scope.task} cannot be decided"
        return bool(self._template({"what": "holds", "text": expression, "scope": asdict(scope)}, what))

    def fill(self, text: str, names: Mapping[str, Any]) -> str:
        known = looked_up(text, names)
        if known is not None:
            return known
        return str(self._template({"what": "fill", "text": text, "names": dict(names)}, "the template cannot be rendered"))

    def finds(self, pattern: str, text: str) -> bool:
        if _SPECIAL.isdisjoint(pattern):
            return pattern in text
        told = pattern if len(pattern) <= TOLD else f"{pattern[:TOLD]}..."
        try:
            return bool(self._ask({"what": "finds", "pattern": pattern, "text": text}))
        except _Overran as error:
            raise PatternFailed(f"searching for {told!r} took longer than {LIMIT_S:g} s") from error
        except _Died as error:
            raise PatternFailed(f"searching for {told!r} takes too much memory") from error
        except _Failed as error:
            raise PatternFailed(f"{told!r} is no regular expression: {error}") from error

    def result_problem(self, schema: str, result: str | None) -> str:
        if result is not None and len(result) > LONGEST_RESULT:
            return f"it is {len(result)} characters long; {LONGEST_RESULT} are the most that is kept"
        try:
            return str(self._ask({"what": "result", "schema": schema, "result": result}))
        except _Overran:
            return f"checking it by its schema took longer than {LIMIT_S:g} s"
        except _Died:
            return "checking it by its schema takes too much memory"
        except _Failed as error:
            return f"its schema cannot be used: {error}"

    def close(self) -> None:
        with self._lock:
            self._closings += 1
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()

    def _template(self, question: Question, what: str) -> Any:
        try:
            return self._ask(question)
        except _Overran as error:
            raise TemplateFailed(f"{what}: it took longer than {LIMIT_S:g} s") from error
        except _Died as error:
            raise TemplateFailed(f"{what}: it takes too much memory") from error
        except _Failed as error:
            raise TemplateFailed(str(error)) from error

    def _ask(self, question: Question) -> Any:
        try:
            data = json.dumps(question).encode()
        except (ValueError, RecursionError) as error:
            raise _Failed(f"what it works with cannot be written down: {error}") from error
        if len(data) >= 1 << (8 * HEAD.size):
            raise _Failed("what it works with is too long")
        child, closings = self._take()
        try:
            answer = child.ask(data)
        except BaseException:
            child.end()
            raise
        self._give_back(child, closings)
        found = json.loads(answer)
        if "failed" in found:
            raise _Failed(found["failed"])
        return found["value"]

    def _take(self) -> tuple[_Child, int]:
        with self._lock:
            closings = self._closings
            while self._idle:
                child = self._idle.pop()
                if child.alive:
                    return child, closings
                child.end()
        return _Child(), closings

    def _give_back(self, child: _Child, closings: int) -> None:
        with self._lock:
            kept = self._closings == closings and len(self._idle) < KEPT
            if kept:
                self._idle.append(child)
        if not kept:
            child.end()


class _Failed(Exception):
    """There is no answer, for a reason that the process could tell."""


TOLD = 200
"""Characters of a pattern that an error tells."""
