"""The evaluating process: ``python -m kapelle.adapters.evaluators.child``. It answers until its input ends.

It holds nothing but what it is asked: no store, no credentials, no descriptor but its own three.
"""

import json
import re
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, cast

from kapelle.adapters.evaluators.wire import READY, framed, unframe
from kapelle.core.errors import KapelleError
from kapelle.core.evaluating import LIMIT_S, MEMORY
from kapelle.core.rendering import fill, holds, render
from kapelle.core.template import NeedView, Scope

SPARE = 1.0
"""Seconds beyond the limit after which it ends itself: its leader has died meanwhile, or would have killed it."""


def _view(given: Any) -> Any:
    return [NeedView(**view) for view in cast("list[Any]", given)] if isinstance(given, list) else NeedView(**given)


def _scope(given: dict[str, Any]) -> Scope:
    tasks = {name: _view(views) for name, views in given["tasks"].items()}
    return Scope(inputs=given["inputs"], tasks=tasks, run=given["run"], task=given["task"], item=given["item"])


def answer(question: dict[str, Any]) -> Any:
    """Return the answer to *question*.

    Raises:
        Exception: there is none; which one depends on what could not be computed.
    """
    match question["what"]:
        case "render":
            return render(question["text"], _scope(question["scope"]))
        case "holds":
            return holds(question["text"], _scope(question["scope"]))
        case "fill":
            return fill(question["text"], question["names"])
        case "finds":
            return re.search(question["pattern"], question["text"]) is not None
        case _:
            # Most workflows ask for no structured result, and this takes long to load.
            from kapelle.core.result import result_problem

            return result_problem(question["schema"], question["result"])


def main() -> None:
    """Answer questions until there are no more."""
    # Not every system has a limit of the address space.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    said, heard = sys.stdout.buffer, sys.stdin.buffer
    said.write(framed(READY))
    said.flush()
    while (data := unframe(heard.read)) is not None:
        # Nothing catches this signal: whatever is computed then, in whatever library, ends.
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S + SPARE)
        try:
            found: dict[str, Any] = {"value": answer(json.loads(data))}
        except KapelleError as error:
            found = {"failed": str(error)}
        except Exception as error:  # noqa: BLE001  # whatever a library raises over what people wrote is told them
            found = {"failed": str(error) or type(error).__name__}
        said.write(framed(json.dumps(found).encode()))
        said.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
