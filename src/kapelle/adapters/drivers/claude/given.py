"""What a tool is called with, in few letters."""

import hashlib
import json
from typing import Any, cast

ABOUT = 400
# What a tool is called with, in the order in which it tells most.
TELLING = ("file_path", "notebook_path", "command", "pattern", "url", "query", "path", "description", "prompt", "skill")


def about(arguments: Any) -> str:
    """Return what a tool is called with, in one short line."""
    if not isinstance(arguments, dict):
        return ""
    given = cast("dict[str, Any]", arguments)
    for name in TELLING:
        value = given.get(name)
        if isinstance(value, str) and value.strip():
            first, _, more = value.strip().partition("\n")
            return first if len(first) <= ABOUT and not more else first[: ABOUT - 1] + "…"
    return ""


def key_of(arguments: Any) -> str:
    """Return what stands for all that a tool is called with."""
    text = json.dumps(arguments, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
