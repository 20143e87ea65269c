"""How a command ends."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process with the exit *code*; what is still to be printed has been.

    What was registered for the end of the process is done. That Python takes itself apart after it is spared: it takes a tenth
    of what a short command takes. With threads at work it is left to Python, which waits for them.
    """
    if threading.active_count() > 1:
        sys.exit(code)
    atexit._run_exitfuncs()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # nothing public does it
    for stream in (sys.stdout, sys.stderr):
        # What was printed at the very end. Where nothing can be written, that was told before, or nobody reads it.
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
