"""Between an agent with secrets and its spool: a small process that starts the program and hides values in what it says.

It is part of the agent's process group, survives the leader, and ends as the program did. The values come from a directory, not
from its arguments, and are read once: whatever is taken away from the agent later is hidden to its end.

- Signals that ask to end are for the program; this one only notes that a child has ended. A handler that does nothing, and not
  "ignored": what is ignored stays ignored in what is started.
- When the program has ended, what is in the pipes by then is written, and nothing more is waited for: what it left behind in
  its group may hold them open for ever, and is ended by the shim.
- Where both streams go to the same file they stay one stream, in order.
"""

import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

from kapelle.adapters.system.private import read_known
from kapelle.core.hiding import Hiding, Stream

PIECE = 1 << 16
SOURCES = str(Path(__file__).parents[3])
START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from kapelle.adapters.hosts.filtering import main; main()"


def filtered(argv: tuple[str, ...], hide: str) -> tuple[str, ...]:
    """Return what starts *argv* so that no value in the directory *hide* is in what it writes."""
    return (sys.executable, "-I", "-S", "-c", START, SOURCES, hide, *argv)


def main() -> None:
    """Run the program that is named behind the directory of values, and end as it does."""
    hiding, argv = Hiding(read_known(sys.argv[1])), sys.argv[2:]
    here, wake = os.pipe()
    for end in (here, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, _note)
    both = os.path.sameopenfile(1, 2)
    out, out_end = os.pipe()
    err, err_end = (out, out_end) if both else os.pipe()
    child = subprocess.Popen(argv, stdout=out_end, stderr=err_end)
    for end in {out_end, err_end}:
        os.close(end)
    # It is the program's.
    os.close(0)
    sys.exit(_relay(child, here, {out: 1, err: 2} if not both else {out: 1}, hiding))


def _note(_number: int, _frame: object) -> None:
    pass


def _relay(child: "subprocess.Popen[bytes]", here: int, goals: dict[int, int], hiding: Hiding) -> int:
    """Pass on what comes out of each pipe until *child* has ended; return the code to end with."""
    streams = {source: Stream(hiding) for source in goals}
    with selectors.DefaultSelector() as selector:
        selector.register(here, selectors.EVENT_READ)
        for source in goals:
            os.set_blocking(source, False)
            selector.register(source, selectors.EVENT_READ)
        while child.poll() is None:
            for key, _ in selector.select():
                source = key.fd
                if source == here:
                    os.read(here, PIECE)
                elif _pass_on(source, goals[source], streams[source]) == 0:
                    selector.unregister(source)
    for source, goal in goals.items():
        while _pass_on(source, goal, streams[source]):
            pass
        _write(goal, streams[source].rest())
    code = child.returncode
    return code if code >= 0 else 128 - code


def _pass_on(source: int, goal: int, stream: Stream) -> int | None:
    """Pass on what is there; return how much it was: 0 at the end of the pipe, None when nothing is there just now."""
    try:
        data = os.read(source, PIECE)
    except BlockingIOError:
        return None
    _write(goal, stream.feed(data))
    return len(data)


def _write(goal: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(goal, rest) :]
