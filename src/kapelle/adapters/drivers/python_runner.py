"""Runs one function for one task: ``python -m kapelle.adapters.drivers.python_runner TASK.json``."""

import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from kapelle.core.frozen import frozen

MARK = "\x1ekapelle "


@frozen
class FunctionTask:
    """What a function that is a task is called with."""

    prompt: str
    cwd: Path


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    module, _, name = str(task["function"]).partition(":")
    # The project's own modules are found from where it works.
    sys.path.insert(0, str(task["cwd"]))
    try:
        function = getattr(importlib.import_module(module), name)
        value = function(FunctionTask(prompt=task["prompt"], cwd=Path(task["cwd"])))
        json.dumps(value)
    except Exception:  # noqa: BLE001  # whatever a user's function raises is its outcome
        return {"error": traceback.format_exc(limit=-5)}
    return {"value": value}


def main() -> int:
    """Run the function named in the file given as the only argument."""
    answer = _answer(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    # In ASCII, whatever the encoding of the standard output is.
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")
    sys.stdout.flush()
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
