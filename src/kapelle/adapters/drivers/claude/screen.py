"""The CLI's own screen: in a terminal, its state known from its hooks and from the file of its conversation.

``claude`` uses it when a person takes a conversation over; ``claude-tui`` always works so. The process that is started stands
between (``adapters/terminals/screen.py``): it pastes prompts into the screen and says what the hooks were told, line by line.

Measured (2.1.329): what is pasted and longer than a few lines comes to the model between ``<pasted_content>`` marks, to the
letter. What is short and begins with a slash or an exclamation mark is a command to the CLI, or to a shell that no rule is
asked about; between those marks it is not. After a backslash at the end Enter is a letter; a blank behind it is cut off.
A turn that is broken off by Escape calls no hook; the conversation says so. A dialog that asks for permission calls
``PermissionRequest``, whose answer takes the dialog's place.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kapelle.adapters.drivers.claude import asking, seed
from kapelle.adapters.drivers.claude.given import about, key_of
from kapelle.adapters.drivers.claude.starting import DEFAULT_MODE, environment, find_claude, permitted
from kapelle.adapters.drivers.lines import Lines, json_in
from kapelle.core.conversation import (
    ConversationEvent,
    ConversationStarted,
    Prompt,
    PromptTaken,
    Said,
    ToolCalled,
    ToolReturned,
    Trouble,
    TurnEnded,
    Typed,
    Unrecognised,
)
from kapelle.core.ids import PromptId
from kapelle.core.ports import AgentOrder, Ended, Launch, Screen
from kapelle.core.trouble import trouble_of_text

TOLD = "kapelle-told"
"""The directory for what hooks leave, among the agent's temporary files."""
HOOKS = (
    "SessionStart",
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "Stop",
    "StopFailure",
    "SessionEnd",
)
ALONE = ("AskUserQuestion", "EnterPlanMode", "ExitPlanMode")
"""Tools that ask a person on the screen: with nobody there they would wait for ever."""
KEPT = 2_000
COMMANDS = ("/", "!")
"""How a prompt begins that the CLI would take for a command to itself, or to a shell."""
BLANK = "\n" * 12
"""So many lines that what follows is taken for something pasted, and for nothing else."""


def launch_screen(order: AgentOrder, program: str | None, *, by_hand: bool) -> Launch:
    """Return how the CLI's own screen is started for *order*."""
    config = order.config
    told = str(Path(order.folder) / "tmp" / TOLD)
    own_login = order.model is not None and order.model.own_login
    settings = {"cwd": order.cwd, "told": told, "seed": not own_login}
    interpreter = asking.interpreter()
    argv = [interpreter, "-I", "-S", f"{order.folder}/seed.py", f"{order.folder}/seed.json", program or find_claude()]
    argv += ["--resume" if order.resume else "--session-id", order.conversation_id]
    argv += ["--permission-mode", config.permission_mode or DEFAULT_MODE]
    for flag, value in (
        ("--model", config.model),
        ("--append-system-prompt", config.prompt or None),
        ("--mcp-config", order.mcp_config or None),
    ):
        if value is not None:
            argv += [flag, value]
    argv += permitted(config, deny=() if by_hand else ALONE)
    argv += ["--settings", json.dumps(_settings(order, told, by_hand=by_hand))]
    env = {**dict(config.env), **dict(order.env), **environment(order)}
    folder = str(Path(env["CLAUDE_CONFIG_DIR"]) / "projects")
    own = (("seed.py", Path(seed.__file__).read_text(encoding="utf-8")), ("seed.json", json.dumps(settings)))
    return Launch(
        argv=tuple(argv),
        cwd=order.cwd,
        env=tuple(env.items()),
        stdin=True,
        limit=order.timeout,
        files=(*(asking.files(order.warden) if order.warden is not None else ()), *own),
        programs=(interpreter, program or find_claude()),
        screen=Screen(
            name=_session(order),
            told=told,
            conversation=folder,
            conversation_file=f"{order.conversation_id}.jsonl",
            resumed=order.resume,
            by_hand=by_hand,
        ),
    )


def _session(order: AgentOrder) -> str:
    """Return what the session is called: the kind of agent, and its id. tmux takes neither dots nor colons."""
    readable = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in order.config.name)
    return f"{readable}-{order.agent_id}"


def _settings(order: AgentOrder, told: str, *, by_hand: bool) -> dict[str, Any]:
    """Return the CLI's settings: every hook leaves what it was told in a file of its own, whole or not at all."""
    settings: dict[str, Any] = {"disableAllHooks": False, "hooks": {}}
    if order.warden is not None:
        # With nobody at the screen to be asked, a person is asked by the inbox.
        settings = asking.settings(order.warden, order.folder, order.config, prompts=not by_hand)
    place = json.dumps(told)
    leave = f'cd {place} && cat > ".$$" && mv ".$$" "$(date +%s)-$$"'
    for kind in HOOKS:
        entry: dict[str, Any] = {"hooks": [{"type": "command", "command": leave, "timeout": 30}]}
        if "Tool" in kind:
            entry["matcher"] = "*"
        settings["hooks"].setdefault(kind, []).append(entry)
    return settings


class ScreenCodec:
    """See ``core.ports.Codec``: what the process says that stands between."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._open: list[str] = []
        self._last = ""

    def feed(self, data: bytes) -> Sequence[ConversationEvent]:
        found: list[ConversationEvent] = []
        for line in self._lines.feed(data):
            if line is None:
                found.append(Unrecognised(kind="too_long", raw=""))
            elif line.strip():
                found += self._line(line)
        return found

    def finish(self, ended: Ended) -> Sequence[ConversationEvent]:
        found: list[ConversationEvent] = []
        if (rest := self._lines.rest()).strip():
            found += self._line(rest)
        if self._open:
            self._open.clear()
            how = "ran out of time" if ended.timed_out else f"ended with exit code {ended.exit_code}"
            found.append(TurnEnded(trouble=Trouble.CRASHED, message=f"claude {how} in the middle of its turn"))
        return found

    def prompt(self, prompt: Prompt) -> bytes:
        return _asked(prompt=prompt.prompt_id, text=_no_command(prompt.text))

    def assign(self, env: Mapping[str, str]) -> bytes:
        # The screen takes what a person would type, and nothing else.
        return b""

    def clear(self, prompt_id: PromptId) -> bytes:
        # It is a person's, or goes on with its own task.
        return b""

    def interrupt(self) -> bytes:
        return _asked(interrupt=True)

    def goodbye(self) -> bytes:
        return _asked(end=True)

    def _line(self, line: bytes) -> list[ConversationEvent]:
        try:
            given = json_in(line)
        except ValueError:
            given = None
        match given:
            case {"taken": str(prompt_id)}:
                self._open.append(prompt_id)
                return [PromptTaken(prompt_id=PromptId(prompt_id))]
            case {"said": str(text)}:
                self._last = text
                return [Said(text=text)] if text.strip() else []
            case {"typed": str(text)}:
                return [Typed(text=text)] if text.strip() else []
            case {"interrupted": True}:
                return self._ended(TurnEnded(trouble=Trouble.INTERRUPTED, message="it was interrupted", turns=1))
            case {"hook": {"hook_event_name": str(kind)} as hook}:
                return self._hook(kind, hook)
            case {"screen": _} | {"ended": _}:
                return []
            case _:
                return [Unrecognised(kind="unknown", raw=line[:KEPT].decode(errors="replace"))]

    def _hook(self, kind: str, hook: dict[str, Any]) -> list[ConversationEvent]:
        call_id, tool = str(hook.get("tool_use_id", "")), str(hook.get("tool_name", ""))
        match kind:
            case "SessionStart":
                return [ConversationStarted(conversation_id=str(hook.get("session_id", "")), model=str(hook.get("model", "")))]
            case "PreToolUse":
                asked = hook.get("tool_input")
                return [ToolCalled(call_id=call_id, tool=tool, about=about(asked), key=key_of(asked))]
            case "PostToolUse" | "PostToolUseFailure":
                failed = kind == "PostToolUseFailure"
                return [ToolReturned(call_id=call_id, failed=failed, about=str(hook.get("error", ""))[:400])]
            case "Stop":
                return self._ended(TurnEnded(text=str(hook.get("last_assistant_message") or self._last), turns=1))
            case "StopFailure":
                said = str(hook.get("error_details") or hook.get("last_assistant_message") or hook.get("error") or "")
                trouble = trouble_of_text(f"{hook.get('error', '')} {said}") or Trouble.API_ERROR
                return self._ended(TurnEnded(trouble=trouble, message=said, turns=1))
            case _:
                return []

    def _ended(self, turn: TurnEnded) -> list[ConversationEvent]:
        self._open.clear()
        return [turn]


def _no_command(text: str) -> str:
    """Return *text* as it is to be pasted, so that it comes to the model and is nothing else."""
    begins = BLANK if text.lstrip().startswith(COMMANDS) else ""
    ends = " " if text.endswith("\\") else ""
    return f"{begins}{text}{ends}"


def _asked(**line: object) -> bytes:
    return json.dumps(line).encode() + b"\n"
