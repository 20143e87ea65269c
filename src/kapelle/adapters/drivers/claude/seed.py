"""What stands before the CLI's own screen: it writes down what the CLI would ask a person first, and becomes the CLI.

It is copied into the agent's folder and run there by any Python, maybe in a sandbox without Kapelle: by the standard library
alone.

    seed.py SETTINGS PROGRAM [ARGUMENT ...]
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def seed(asked: dict[str, Any]) -> None:
    """Let the CLI know that it was set up, that the directory is trusted, and that the key may be used."""
    folder = os.environ["CLAUDE_CONFIG_DIR"]
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, ".claude.json")
    found: dict[str, Any] = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    found["hasCompletedOnboarding"] = True
    found.setdefault("theme", "dark")
    keys = found.setdefault("customApiKeyResponses", {})
    # The CLI knows a key by its last letters.
    approved = [os.environ.get("ANTHROPIC_API_KEY", "")[-20:]]
    keys["approved"] = [*keys.get("approved", []), *approved]
    keys.setdefault("rejected", [])
    project = found.setdefault("projects", {}).setdefault(asked["cwd"], {})
    project |= {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    with open(f"{path}.new", "w", encoding="utf-8") as stream:
        json.dump(found, stream)
    os.replace(f"{path}.new", path)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as settings:
        wanted = json.load(settings)
    os.makedirs(wanted["told"], exist_ok=True)
    if wanted["seed"]:
        seed(wanted)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  # it becomes the CLI
