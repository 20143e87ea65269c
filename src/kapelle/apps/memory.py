"""Memory of a process that leads for hours."""

import gc

GARBAGE = 50_000
"""Objects that are made before the young ones are looked through; Python's own 700 are made by a handful of tasks."""


def collect_less() -> None:
    """Leave what is loaded by now out of garbage collection, and collect what comes later less often.

    Nearly nothing that the engine makes is part of a cycle: it is gone when its last user is. For processes that are Kapelle's
    own; in somebody else's (the Python API) this is not ours to decide.
    """
    # Not looked through before: loading leaves next to no garbage, and looking takes as long as ten passes.
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 100)
