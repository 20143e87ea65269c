"""How the CLI is made to ask its warden: a hook before every tool, and one in the place of its permission prompt.

Measured (2.1.329): a hook that ends with 2 forbids the tool; one that fails in any other way, is killed or takes too long
forbids nothing. So the shell round the helper makes a 2 of whatever goes wrong, and the CLI waits longer than the helper.
Where it would prompt, with or without a screen, a hook is asked (``PermissionRequest``); without its answer ``-p`` denies. It
is not told the call's own name. An ``ask`` of the CLI's permissions prompts though the hook before the tool has allowed it: it
is the same call, and answered already, which the inbox sees by what is asked. A server of ours for its
``--permission-prompt-tool`` took a tenth of the CLI's own time more for each process; ``stdio`` denies once the leader is gone.
A ``disableAllHooks`` in the workspace's own settings switches hooks off, unless the settings of the command line say otherwise.
"""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kapelle.core.agent import AgentConfig
from kapelle.core.judging import unspoken
from kapelle.core.warden import WardenAccess

HELPER, WHERE = "warden.py", "warden.json"
SLACK_S = 60
"""How much longer than its helper the CLI waits."""
FAILED = "Kapelle's rules could not be asked; this tool is not used"


def interpreter() -> str:
    """Return the Python that the helper is run by: the one that this is run by, without its virtual environment."""
    return os.path.realpath(sys.executable)


def _permissions(config: AgentConfig) -> dict[str, list[str]]:
    """Return what the program's own permissions can say of the rules: they hold though somebody ends the hook's helper.

    Those about paths mean something else there, and in ``dontAsk`` asking would be denying.
    """

    def own(rules: Sequence[str]) -> list[str]:
        return [rule for rule in rules if "(" not in rule or rule.startswith("Bash(")]

    asks = own(config.rules.ask) if config.permission_mode != "dontAsk" else []
    return {"deny": own(config.rules.deny), "ask": asks}


def _asked(silent: Sequence[str]) -> str:
    """Return a pattern of the tools that are asked about: all, also those that nobody knows yet, but the *silent* ones."""
    return f"^(?!(?:{'|'.join(silent)})$).*$" if silent else "*"


def _helper(folder: str) -> tuple[str, str]:
    """Return how a Python is chosen that runs the helper in *folder*, and how it is run."""
    # In a container there may be another Python than here, or none of these: then no tool is used at all.
    choose = f'python={shlex.quote(interpreter())}; [ -x "$python" ] || python=python3'
    return choose, f'"$python" -I -S {shlex.quote(f"{folder}/{HELPER}")}'


def settings(access: WardenAccess, folder: str, config: AgentConfig, *, prompts: bool = True) -> dict[str, Any]:
    """Return the CLI's settings with which it asks at *access* before it uses a tool; the helper is in *folder*.

    With *prompts* it asks there as well where it would prompt a person: nobody sits at its screen.
    """
    choose, run = _helper(folder)
    hook = {
        "type": "command",
        "command": f"{choose}; {run} hook || {{ echo {shlex.quote(FAILED)} >&2; exit 2; }}",
        "timeout": int(access.patience.total_seconds()) + SLACK_S,
    }
    hooks: dict[str, Any] = {"PreToolUse": [{"matcher": _asked(unspoken(config.rules)), "hooks": [hook]}]}
    if prompts:
        hooks["PermissionRequest"] = [_permission(access, folder)]
    return {"disableAllHooks": False, "hooks": hooks, "permissions": _permissions(config)}


def _permission(access: WardenAccess, folder: str) -> dict[str, Any]:
    """Return the hook that is asked in the place of a person."""
    choose, run = _helper(folder)
    denied = json.dumps(_decision({"behavior": "deny", "message": FAILED}))
    return {
        "matcher": "*",
        "hooks": [
            {
                "type": "command",
                "command": f"{choose}; {run} permit || printf %s {shlex.quote(denied)}",
                "timeout": int(access.patience.total_seconds()) + SLACK_S,
            }
        ],
    }


def _decision(decision: dict[str, str]) -> dict[str, Any]:
    return {"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}}


def arguments(access: WardenAccess, folder: str, config: AgentConfig) -> list[str]:
    """Return what the CLI is started with so that it asks at *access*; the helper is in *folder*."""
    return ["--settings", json.dumps(settings(access, folder, config))]


def files(access: WardenAccess) -> tuple[tuple[str, str], ...]:
    """Return the files that the helper needs in the agent's folder."""
    where = {"folder": access.folder, "token": access.token, "patience": access.patience.total_seconds()}
    return ((HELPER, Path(__file__).with_name("helper.py").read_text(encoding="utf-8")), (WHERE, json.dumps(where)))
