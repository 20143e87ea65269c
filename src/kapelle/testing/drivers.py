"""Drivers of programs that speak a trivial protocol: one JSON object on each line, with one word that says what it is."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kapelle.core.agent import AgentConfig
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
from kapelle.core.frozen import replace
from kapelle.core.ids import PromptId
from kapelle.core.ports import AgentOrder, Codec, DriverCapabilities, Ended, Launch, Screen

TOKEN = "FAKE_TOKEN"  # noqa: S105  # the name of a variable, not a token
ALL = DriverCapabilities(
    conversation=True,
    reports_tools=True,
    reports_cost=True,
    structured_result=True,
    uses_gateway=True,
    interrupt=True,
    asks=True,
    writers=frozenset({"Write"}),
    screen=True,
    warm=True,
    clears=True,
)


class LineDriver:
    """See ``core.ports.Driver``: a program with a conversation, tools and structured results.

    Its standard input takes prompts, as ``LineCodec.prompt`` writes them.
    """

    def __init__(self, name: str = "line", capabilities: DriverCapabilities = ALL) -> None:
        self.name = name
        self.capabilities = capabilities

    def launch(self, order: AgentOrder) -> Launch:
        """See the port."""
        env = {**dict(order.config.env), **dict(order.env)}
        if order.model is not None:
            env[TOKEN] = order.model.api_key or "".join(value for _, value in order.model.headers)
        argv = [self.name, "resume" if order.resume else "new", order.conversation_id]
        if not self.capabilities.conversation and order.first_prompt is not None:
            argv += [order.first_prompt.prompt_id, order.first_prompt.text]
        stdin = self.capabilities.conversation
        return Launch(argv=tuple(argv), cwd=order.cwd, env=tuple(env.items()), stdin=stdin, limit=order.timeout)

    def screen(self, order: AgentOrder, *, by_hand: bool) -> Launch:
        """See ``core.terminals.ScreenDriver``."""
        screen = Screen(name="screen", told="", conversation="", conversation_file="", by_hand=by_hand)
        return replace(self.launch(order), screen=screen)

    def screen_codec(self) -> Codec:
        """See ``core.terminals.ScreenDriver``."""
        return LineCodec()

    def codec(self) -> Codec:
        """See the port."""
        return LineCodec(once=not self.capabilities.conversation)

    def missing(self) -> str:
        """See the port."""
        return ""

    def problems(self, config: AgentConfig, *, gateway: bool = True) -> Sequence[str]:  # noqa: ARG002  # as the port has it
        """See the port."""
        return ()


class LineCodec:
    """See ``core.ports.Codec``; *once* is for a program that takes one prompt by argument and ends after it."""

    def __init__(self, *, once: bool = False) -> None:
        self._once = once
        self._rest = b""
        self._open = once
        self._last = ""

    def feed(self, data: bytes) -> Sequence[ConversationEvent]:
        """See the port."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [event for line in lines if line.strip() for event in self._line(line)]

    def _line(self, line: bytes) -> list[ConversationEvent]:
        try:
            given: dict[str, Any] = json.loads(line)
        except ValueError:
            return [Unrecognised(kind="no_json", raw=line[:2000].decode(errors="replace"))]
        match given:
            case {"started": str(conversation)}:
                return [ConversationStarted(conversation_id=conversation)]
            case {"taken": str(prompt_id)}:
                self._open = True
                return [PromptTaken(prompt_id=PromptId(prompt_id))]
            case {"said": str(text)}:
                self._last = text
                return [Said(text=text)]
            case {"tool": str(tool), "about": str(about)}:
                return [ToolCalled(call_id=given.get("call_id", ""), tool=tool, about=about, key=about)]
            case {"returned": str(about)}:
                return [ToolReturned(call_id=given["call_id"], failed=bool(given["failed"]), about=about)]
            case {"tool_failed": str(about)}:
                return [ToolReturned(call_id="call", failed=True, about=about)]
            case {"retried": int(number)}:
                return [ModelRetried(attempt=number, delay_s=1.0, status=529)]
            case {"done": str(text)}:
                self._open = False
                denied = tuple(given.get("denied", ()))
                return [TurnEnded(text=text, result=given.get("result"), cost_usd=given.get("cost"), turns=1, denied=denied)]
            case {"trouble": str(word), "message": str(message)}:
                self._open = False
                return [TurnEnded(trouble=Trouble(word), message=message, cost_usd=given.get("cost"), turns=1)]
            case _:
                return [Unrecognised(kind="unknown", raw=line[:2000].decode(errors="replace"))]

    def finish(self, ended: Ended) -> Sequence[ConversationEvent]:
        """See the port."""
        if not self._open:
            return []
        self._open = False
        if self._once and ended.exit_code == 0:
            return [TurnEnded(text=self._last)]
        how = "ran out of time" if ended.timed_out else f"ended with exit code {ended.exit_code}"
        return [TurnEnded(trouble=Trouble.CRASHED, message=f"the program {how} in the middle of its turn")]

    def prompt(self, prompt: Prompt) -> bytes:
        """See the port."""
        return json.dumps({"prompt": prompt.prompt_id, "text": prompt.text}).encode() + b"\n"

    def assign(self, env: Mapping[str, str]) -> bytes:
        """See the port."""
        return json.dumps({"assign": dict(env)}).encode() + b"\n"

    def clear(self, prompt_id: PromptId) -> bytes:
        """See the port."""
        return json.dumps({"clear": prompt_id}).encode() + b"\n"

    def interrupt(self) -> bytes:
        """See the port."""
        return json.dumps({"interrupt": True}).encode() + b"\n"

    def goodbye(self) -> bytes:
        """See the port."""
        return b""
