"""Which requests are model calls: each of those is admitted and counted, and what cannot be is refused.

What an agent asks for by itself, past its program, costs money too.
"""

import re

UNCOUNTED = "kapelle: this kind of model call cannot be counted and passes no budget; use /v1/messages"
_BEYOND = re.compile(r"/(messages/batches|complete|chat/completions)/*")


def is_model_call(path: str) -> bool:
    """Say whether a request to *path* is a model call that can be counted."""
    return path.rstrip("/").endswith("/messages")


def uncounted(method: str, path: str) -> bool:
    """Say whether a request to *path* would have a model work where nobody counts what it uses."""
    return method == "POST" and any(found.end() == len(path) for found in _BEYOND.finditer(path))
