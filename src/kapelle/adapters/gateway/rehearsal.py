"""The rehearsal: which turn of the script answers a request. Pure; what was consumed is handed in and handed back.

Which turn it is, is read from the conversation itself: the replies since the last prompt of a person. So a resumed, forked or
repeated conversation goes on where it was. Only faults (errors, stalls, cuts) leave no trace in a conversation; those are
counted in the request log.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, cast

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kapelle.adapters.gateway.rehearsal_file import Rehearsal, Rule, Turn, dumps
from kapelle.adapters.gateway.replies import Reply, ToolUse
from kapelle.core.budget import Usage

_TEMPLATES = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who asks."""

    run: str
    task: str
    attempt: int
    round: int | None
    cwd: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something that happens in place of a reply."""

    turn: Turn
    key: str
    """Under which it is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A reply of the model."""

    reply: Reply
    turn: Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class _Conversation:
    prompt: str
    prompts: int
    replies: int
    size: int
    has_tools: bool


def _read(body: Mapping[str, Any]) -> _Conversation:
    """Return what the request says about where the conversation is."""
    prompt, prompts, replies, size, was_assistant = "", 0, 0, 0, False
    for message in cast("Sequence[Mapping[str, Any]]", body.get("messages") or ()):
        role, content = message.get("role"), message.get("content")
        size += len(str(content))
        if role == "assistant":
            replies += 0 if was_assistant else 1
            was_assistant = True
            continue
        if role != "user":
            continue
        was_assistant = False
        text = _prompt_text(content)
        if text is not None:
            prompt, prompts, replies = text, prompts + 1, 0
    return _Conversation(prompt=prompt, prompts=prompts, replies=replies, size=size, has_tools=bool(body.get("tools")))


def _prompt_text(content: Any) -> str | None:
    """Return what a person said in a user message, or None when it only holds results of tools or reminders."""
    if isinstance(content, str):
        return None if _is_reminder(content) else content
    texts: list[str] = []
    for block in cast("Sequence[Mapping[str, Any]]", content or ()):
        if block.get("type") == "tool_result":
            return None
        text = block.get("text")
        if block.get("type") == "text" and isinstance(text, str) and not _is_reminder(text):
            texts.append(text)
    return "\n".join(texts) if texts else None


def _is_reminder(text: str) -> bool:
    return text.lstrip().startswith("<system-reminder>")


def answer(
    rehearsal: Rehearsal, body: Mapping[str, Any], caller: Caller, consumed: Mapping[str, int], message_id: str
) -> Answer | Fault:
    """Return what the script says to a request.

    *consumed* says how often each fault happened already; *message_id* names the reply.
    """
    talk = _read(body)
    model = str(body.get("model") or "rehearsal")
    if not talk.has_tools:
        # A question on the side (a title, a summary) of a program's own: it has no turn in the script.
        return _reply(Turn(say="Rehearsal"), caller, talk, model, message_id)
    round_ = caller.round if caller.round is not None else max(talk.prompts - 1, 0)
    for index, rule in enumerate(rehearsal.rules):
        if _fits(rule, caller, round_, talk.prompt):
            return _turn(rule, index, caller, talk, model, consumed, message_id)
    return _reply(rehearsal.otherwise, caller, talk, model, message_id)


def _fits(rule: Rule, caller: Caller, round_: int, prompt: str) -> bool:
    when = rule.when
    if when.task is not None and when.task != caller.task and not fnmatchcase(caller.task, when.task):
        return False
    if when.attempt is not None and when.attempt != caller.attempt:
        return False
    if when.round is not None and when.round != round_:
        return False
    return when.prompt is None or re.search(when.prompt, prompt) is not None


def _turn(
    rule: Rule,
    rule_index: int,
    caller: Caller,
    talk: _Conversation,
    model: str,
    consumed: Mapping[str, int],
    message_id: str,
) -> Answer | Fault:
    replies = 0
    for index, turn in enumerate(rule.turns):
        if turn.is_reply:
            if replies == talk.replies:
                return _reply(turn, caller, talk, model, message_id)
            replies += 1
            continue
        key = f"{caller.run}/{caller.task}/{caller.attempt}/{rule_index}/{index}"
        # A fault comes up when every reply before it was given, and no reply after it.
        if replies == talk.replies and consumed.get(key, 0) < turn.times:
            return Fault(turn=turn, key=key)
    text = f"(rehearsal: rule {rule_index + 1} has no turn left for reply {talk.replies + 1})"
    return _reply(Turn(say=text), caller, talk, model, message_id)


def _reply(turn: Turn, caller: Caller, talk: _Conversation, model: str, message_id: str) -> Answer:
    names = {
        "cwd": caller.cwd,
        "task": caller.task,
        "attempt": caller.attempt,
        "run": caller.run,
        "round": caller.round if caller.round is not None else max(talk.prompts - 1, 0),
        "prompt": talk.prompt,
    }
    text = _fill(turn.say or "", names)
    tools = [
        ToolUse(name=name, arguments=dumps(_fill_all(arguments, names)))
        for call in turn.tools
        for name, arguments in call.items()
    ]
    if turn.usage is not None:
        usage = Usage(
            input_tokens=turn.usage.input_tokens,
            output_tokens=turn.usage.output_tokens,
            cache_read_tokens=turn.usage.cache_read_tokens,
            cache_write_tokens=turn.usage.cache_write_tokens,
        )
    else:
        said = len(text) + sum(len(tool.arguments) for tool in tools)
        usage = Usage(input_tokens=talk.size // CHARACTERS_PER_TOKEN, output_tokens=said // CHARACTERS_PER_TOKEN + 1)
    return Answer(reply=Reply(message_id=message_id, model=model, text=text, tools=tools, usage=usage), turn=turn)


def _fill(text: str, names: Mapping[str, Any]) -> str:
    if "{" not in text:
        return text
    try:
        return _TEMPLATES.from_string(text).render(names)
    except TemplateError as error:
        return f"(rehearsal: {error})"


def _fill_all(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return _fill(value, names)
    if isinstance(value, dict):
        return {key: _fill_all(inner, names) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_fill_all(inner, names) for inner in cast("list[Any]", value)]
    return value


def fault_message(turn: Turn, now: datetime) -> str:
    """Return the text of an error, as the API words it."""
    if turn.message is not None:
        return turn.message
    if turn.usage_limit is not None:
        return f"You've hit your usage limit. It resets at {turn.usage_limit.astimezone(UTC):%Y-%m-%dT%H:%MZ}."
    texts = {401: "invalid x-api-key", 429: "rate limit reached (rehearsed)", 529: "Overloaded"}
    return texts.get(turn.error or 0, f"rehearsed error {turn.error} at {now:%H:%M:%S}")


CWD = re.compile(r"(?:Primary working directory|Working directory|cwd)[:\s]+(/[^\n<]+)")


def cwd_of(body: Mapping[str, Any]) -> str:
    """Return the working directory that the CLI names in its own system prompt, or an empty string."""
    found = CWD.search(str_of(body.get("system"))) or CWD.search(str_of(body.get("messages")))
    return found.group(1).strip() if found else ""


def str_of(content: Any) -> str:
    """Return all text in *content*."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return str_of(list(cast("dict[str, Any]", content).values()))
    if isinstance(content, list):
        return "\n".join(str_of(part) for part in cast("list[Any]", content))
    return ""
