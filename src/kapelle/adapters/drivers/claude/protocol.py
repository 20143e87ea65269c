"""The CLI's protocol, sans-I/O: bytes of the spool in, typed events out; prompts in, bytes for standard input out.

Nothing that arrives is fatal. What is not understood becomes ``Unrecognised``.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import ValidationError

from kapelle.adapters.drivers.claude.given import ABOUT, about, key_of
from kapelle.adapters.drivers.claude.messages import (
    EXPECTED,
    KNOWN,
    Assistant,
    RateLimit,
    Result,
    System,
    User,
    message_in,
)
from kapelle.adapters.drivers.claude.trouble import trouble_of
from kapelle.adapters.drivers.lines import Lines, json_in
from kapelle.core.budget import Usage
from kapelle.core.conversation import (
    ConversationEvent,
    ConversationStarted,
    ModelRetried,
    Prompt,
    PromptTaken,
    Said,
    ToolCalled,
    ToolReturned,
    Trouble,
    TurnEnded,
    Unrecognised,
)
from kapelle.core.ids import PromptId
from kapelle.core.ports import Ended

COMMAND = "/"
"""How a command to the CLI begins: it answers that itself, and the model never hears it."""
KEPT = 2_000
DIAGNOSTIC = "[ede_diagnostic]"
"""How a line begins that is for those who make the CLI."""
BABBLES = 100
"""Lines that are not understood and are kept nevertheless."""
MOST_OPEN = 1_000
"""Prompts that may be open at once."""


class ClaudeCodec:
    """See ``core.ports.Codec``."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._open: set[str] = set()
        """Prompts that were taken and not answered yet."""
        self._structured: str | None = None
        self._resets_at: datetime | None = None
        """When the account's limit ends, by the CLI's last word; None when it is not at its limit."""
        self._babbled = 0
        """Lines that were not understood."""
        self._subagents = 0
        """Subagents at work in the background: what looks like the end of the turn meanwhile is none, files still change."""

    def feed(self, data: bytes) -> Sequence[ConversationEvent]:
        found: list[ConversationEvent] = []
        for line in self._lines.feed(data):
            if line is None:
                found.extend(self._babble("too_long", b""))
            elif line.strip():
                found.extend(self._line(line))
        return found

    def _babble(self, kind: str, line: bytes) -> list[ConversationEvent]:
        """Keep what is not understood; after very much of it nothing more, all of it is in the spool."""
        self._babbled += 1
        return [_unrecognised(kind if self._babbled < BABBLES else "and more", line)] if self._babbled <= BABBLES else []

    def finish(self, ended: Ended) -> Sequence[ConversationEvent]:
        found: list[ConversationEvent] = []
        rest = self._lines.rest()
        if rest.strip():
            found.extend(self._line(rest))
        if self._open:
            self._open.clear()
            how = "ran out of time" if ended.timed_out else f"ended with exit code {ended.exit_code}"
            found.append(TurnEnded(trouble=Trouble.CRASHED, message=f"claude {how} in the middle of its turn"))
        return found

    def prompt(self, prompt: Prompt) -> bytes:
        # Measured (2.1.329): what begins with a slash is a command to the CLI, unless a line stands before it.
        return _said(prompt.prompt_id, f"\n{prompt.text}" if prompt.text.startswith(COMMAND) else prompt.text)

    def assign(self, env: Mapping[str, str]) -> bytes:
        # Undocumented; tools that are started from then on have the variables. See tests/adapters/drivers.
        return _control("apply_flag_settings", settings={"env": dict(env)})

    def clear(self, prompt_id: PromptId) -> bytes:
        # As a person would: a new conversation, whose cost counts from nothing. Its servers and its settings stay.
        return _said(prompt_id, f"{COMMAND}clear")

    def interrupt(self) -> bytes:
        return _control("interrupt")

    def goodbye(self) -> bytes:
        # Undocumented; it ends an idle process at once. Closing the input, which always follows, ends it as well.
        return _control("end_session")

    def _line(self, line: bytes) -> list[ConversationEvent]:
        try:
            content = json_in(line)
        except ValueError:
            return self._babble("no_json", line)
        kind = cast("dict[str, Any]", content).get("type") if isinstance(content, dict) else None
        if not isinstance(kind, str):
            return self._babble("no_type", line)
        if kind in EXPECTED:
            return []
        if kind not in KNOWN:
            return self._babble(kind, line)
        try:
            return self._message(message_in(cast("object", content)))
        except (ValidationError, ValueError, RecursionError):
            found = self._babble(kind, line)
        if kind == "result":
            # Whatever it says, the turn is over: nobody is to wait for more.
            self._open.clear()
            found.append(TurnEnded(trouble=Trouble.UNKNOWN, message="the end of its turn could not be understood"))
        return found

    def _message(self, message: System | Assistant | User | Result | RateLimit) -> list[ConversationEvent]:
        match message:
            case System():
                return self._system(message)
            case Assistant():
                return self._assistant(message)
            case User():
                return self._user(message)
            case RateLimit():
                self._resets_at = _reset(message)
                return []
            case Result():
                trouble = trouble_of(message)
                return [] if trouble is None and self._subagents else [self._result(message, trouble)]

    def _system(self, message: System) -> list[ConversationEvent]:
        if message.subtype == "init":
            started = ConversationStarted(
                conversation_id=message.session_id,
                model=message.model,
                tools=tuple(message.tools),
                version=message.claude_code_version,
            )
            return [started]
        if message.subtype == "background_tasks_changed":
            # A shell in the background (a server, say) may never end; nobody waits for it.
            self._subagents = sum(1 for task in message.tasks if task.task_type != "local_bash")
            return []
        if message.subtype == "api_retry":
            delay = (message.retry_delay_ms or 0) / 1000
            return [ModelRetried(attempt=message.attempt, delay_s=delay, status=message.error_status)]
        return []

    def _assistant(self, message: Assistant) -> list[ConversationEvent]:
        blocks = message.message.content
        if isinstance(blocks, str):
            return [Said(text=blocks)] if blocks.strip() else []
        found: list[ConversationEvent] = []
        for block in blocks:
            if block.type == "text" and block.text.strip() and message.parent_tool_use_id is None:
                found.append(Said(text=block.text))
            elif block.type == "tool_use":
                if block.name == "StructuredOutput":
                    self._structured = json.dumps(block.input, ensure_ascii=False, allow_nan=False)
                found.append(ToolCalled(call_id=block.id, tool=block.name, about=about(block.input), key=key_of(block.input)))
        return found

    def _user(self, message: User) -> list[ConversationEvent]:
        blocks = message.message.content
        if not isinstance(blocks, str):
            results = [block for block in blocks if block.type == "tool_result"]
            if results:
                return [
                    ToolReturned(call_id=block.tool_use_id, failed=bool(block.is_error), about=_text(block.content))
                    for block in results
                ]
        if message.uuid and message.isReplay and message.parent_tool_use_id is None:
            if len(self._open) < MOST_OPEN:
                self._open.add(message.uuid)
            return [PromptTaken(prompt_id=PromptId(message.uuid))]
        return []

    def _result(self, message: Result, trouble: Trouble | None) -> TurnEnded:
        self._open.clear()
        structured = None
        if message.structured_output is not None:
            structured = json.dumps(message.structured_output, ensure_ascii=False, allow_nan=False)
        given, self._structured = structured or self._structured, None
        usage = None
        if message.usage is not None:
            usage = Usage(
                input_tokens=message.usage.input_tokens,
                output_tokens=message.usage.output_tokens,
                cache_read_tokens=message.usage.cache_read_input_tokens or 0,
                cache_write_tokens=message.usage.cache_creation_input_tokens or 0,
            )
        said = message.result or ""
        return TurnEnded(
            text="" if trouble else said,
            trouble=trouble,
            message=said or _why(message.errors or (), trouble) if trouble else "",
            result=given,
            resets_at=self._resets_at if trouble in {Trouble.USAGE_LIMIT, Trouble.RATE_LIMITED} else None,
            turns=message.num_turns,
            cost_usd=message.total_cost_usd,
            usage=usage,
            denied=tuple(dict.fromkeys(denial.tool_name for denial in message.permission_denials or ())),
        )


def _why(errors: Sequence[str], trouble: Trouble) -> str:
    """Return what the CLI says went wrong; what it says of its own inside only where it says nothing else."""
    told = "; ".join(each for each in errors if not each.startswith(DIAGNOSTIC))
    return told or ("it was interrupted" if trouble is Trouble.INTERRUPTED else "; ".join(errors))


def _reset(message: RateLimit) -> datetime | None:
    info = message.rate_limit_info
    if info.status != "rejected" or info.resetsAt is None:
        return None
    try:
        return datetime.fromtimestamp(info.resetsAt, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _said(prompt_id: PromptId, text: str) -> bytes:
    content = {"role": "user", "content": [{"type": "text", "text": text}]}
    message = {"type": "user", "uuid": prompt_id, "message": content, "parent_tool_use_id": None}
    return json.dumps(message, ensure_ascii=False).encode(errors="replace") + b"\n"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content[:ABOUT]
    if isinstance(content, list):
        parts = [cast("dict[str, Any]", part).get("text", "") for part in cast("list[Any]", content) if isinstance(part, dict)]
        return " ".join(str(part) for part in parts)[:ABOUT]
    return ""


def _unrecognised(kind: str, line: bytes) -> Unrecognised:
    return Unrecognised(kind=kind[:100], raw=line[:KEPT].decode(errors="replace"))


def _control(subtype: str, **more: object) -> bytes:
    request = {"type": "control_request", "request_id": f"kapelle-{subtype}", "request": {"subtype": subtype, **more}}
    return json.dumps(request).encode() + b"\n"
