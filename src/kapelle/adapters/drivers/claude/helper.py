"""What the Claude Code CLI starts to ask its warden: as a hook before each tool, and in the place of its permission prompt.

It is copied into the agent's folder and run there by any Python, maybe in a sandbox without Kapelle: by the standard library
alone. It is started with every tool call, and most of its time goes into loading (``json`` and ``socket`` take longer than
Python itself): so it uses the parts of them that are written in C, where there are such. ``warden.json`` beside it says where
to ask. How things are asked is told in ``core.warden``.

    helper.py hook      one call on standard input (PreToolUse); the decision on standard output, nothing when there is none
    helper.py permit    what the CLI would ask a person (PermissionRequest); the decision on standard output
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # that of typing takes longer to load than all the rest
if TYPE_CHECKING:
    import json
    import socket
    from typing import Any
else:
    try:
        import _json
        import _socket as socket
    except ImportError:  # not CPython
        import json
        import socket

        _json = None

AGAIN = 0.2
"""Seconds between tries to reach whoever leads."""
LONGEST = 100_000
"""Characters of a command that are passed on."""
PATHS = ("file_path", "notebook_path", "path")
TELLING = ("url", "query", "pattern", "description", "skill", "prompt")
NOBODY = "nobody led Kapelle to decide about it; go on without it, or try again later"


class Reading:
    """How JSON is read: as ``json.loads`` does."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float


def read(text: str) -> Any:
    """Return what the JSON *text* says.

    Raises:
        ValueError: it is none.
    """
    if TYPE_CHECKING or _json is None:
        return json.loads(text)
    try:
        return _json.make_scanner(Reading)(text.strip(), 0)[0]
    except StopIteration as error:
        raise ValueError("this is no JSON") from error


def written(value: Any) -> str:
    """Return *value*, made of what JSON is made of, as JSON."""
    if TYPE_CHECKING or _json is None:
        return json.dumps(value)
    if isinstance(value, str):
        return _json.encode_basestring_ascii(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{written(name)}:{written(inner)}" for name, inner in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([written(inner) for inner in value]) + "]"
    return {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))


def place() -> dict[str, Any]:
    """Return where to ask, and how."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "warden.json"), encoding="utf-8") as stream:
        return read(stream.read())


def asked(tool: str, given: dict[str, Any], call_id: str, cwd: str, *, prompted: bool) -> dict[str, Any]:
    """Return what is asked about a call of *tool* with the arguments *given*."""
    command = given.get("command") if isinstance(given.get("command"), str) else None
    texts = {name: value for name, value in given.items() if isinstance(value, str)}
    about = next((texts[name] for name in TELLING if name in texts), "")
    return {
        "call_id": call_id,
        "tool": tool,
        "command": None if command is None else command[:LONGEST],
        "cut": command is not None and len(command) > LONGEST,
        "paths": [texts[name] for name in PATHS if name in texts],
        "about": about[:2000],
        "cwd": cwd,
        "prompted": prompted,
    }


def ask(question: dict[str, Any]) -> tuple[str, str]:
    """Ask the warden, for as long as it may take; return the verdict and its reason."""
    where = place()
    until = time.monotonic() + where["patience"]
    line = written({**question, "token": where["token"]}).encode() + b"\n"
    # The socket's path may be longer than a socket's path may be.
    os.chdir(where["folder"])
    while True:
        try:
            answer = answered(line, max(until - time.monotonic(), AGAIN))
            if answer.endswith(b"\n"):
                found = read(answer.decode())
                return found["verdict"], found["reason"]
        except OSError:
            # Whoever led has died, or is not there yet.
            pass
        if time.monotonic() >= until:
            return "deny", NOBODY
        time.sleep(AGAIN)


def answered(line: bytes, patience: float) -> bytes:
    """Say *line* to the warden, and return its line; one that breaks off when the warden is gone."""
    warden, answer = socket.socket(socket.AF_UNIX), b""
    try:
        warden.settimeout(patience)
        warden.connect("ask")
        warden.sendall(line)
        while not answer.endswith(b"\n") and (more := warden.recv(1 << 16)):
            answer += more
    finally:
        warden.close()
    return answer


def hook() -> None:
    """Answer one PreToolUse."""
    given = read(sys.stdin.read())
    call_id, cwd = given.get("tool_use_id", ""), given.get("cwd", "")
    verdict, reason = ask(asked(given["tool_name"], given.get("tool_input") or {}, call_id, cwd, prompted=False))
    if verdict in ("allow", "deny"):
        said = {"hookEventName": "PreToolUse", "permissionDecision": verdict, "permissionDecisionReason": reason}
        sys.stdout.write(written({"hookSpecificOutput": said}))


def permit() -> None:
    """Answer one PermissionRequest: what the CLI would ask a person."""
    given = read(sys.stdin.read())
    # The CLI does not say which call it is. One of our own, so that the next leader knows what the last one was asked already.
    call_id, cwd = f"prompt-{os.getpid()}-{time.time_ns()}", given.get("cwd", "")
    verdict, reason = ask(asked(given["tool_name"], given.get("tool_input") or {}, call_id, cwd, prompted=True))
    decision = {"behavior": "allow"} if verdict == "allow" else {"behavior": "deny", "message": reason}
    sys.stdout.write(written({"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}}))


if __name__ == "__main__":
    {"hook": hook, "permit": permit}[sys.argv[1]]()
