"""What a request to the Messages API asks, as far as rehearsal and meter must know. Sans-I/O: JSON in, values out.

Not everything that has the role of a user was said by one. The CLI puts its reminders, the text of a skill, the result of a
tool and the note that a turn was interrupted there too, and joins what follows each other into one message. A conversation
that was cut off and resumed holds an answer that no model gave. All of that is told apart here, as measured on CLI 2.1.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from kapelle.core.frozen import frozen
from kapelle.core.wording import go_on

# Text blocks by which the CLI itself speaks in the role of the user.
_ASIDE = re.compile(r"\s*(<system-reminder>|<local-command|<command-(name|message|args)>|\[Request interrupted by user)")
# What the CLI puts in the model's mouth when a conversation is resumed in the middle of a turn.
_NOT_SAID = frozenset({"No response requested."})
_CWD = re.compile(r"(?:Primary working directory|Working directory):[ \t]{0,10}(/[^\n<]{0,4096}[^\s<])")


@frozen
class Asked:
    """A request to the Messages API."""

    model: str
    streaming: bool
    on_the_side: bool
    """A question that is no part of the work: it offers no tools (a title) or asks for a summary."""
    prompt: str
    """What was last said by whoever leads the conversation."""
    prompts: int
    """How many times something was said."""
    replies: int
    """How many replies the model has given since. A prompt to go on after a crash is none: the count goes on too."""
    characters: int
    """The length of everything that was said and answered so far."""
    cwd: str
    """The working directory by the CLI's own words; empty when it names none."""


def read_request(body: bytes) -> Asked:
    """Return what the request with the JSON *body* asks; never raises, whatever it is."""
    content = json_object(body)
    prompt, prompts, replies, characters, in_reply = "", 0, 0, 0, False
    for message in json_objects(content.get("messages")):
        said = message.get("content")
        characters += len(said) if isinstance(said, str) else _length(said)
        if message.get("role") == "assistant":
            # What follows each other is one reply that was cut into pieces.
            replies += not in_reply and not _made_up(said)
            in_reply = in_reply or not _made_up(said)
        elif message.get("role") == "user":
            in_reply = False
            if texts := _prompts(said):
                prompt, prompts, replies = texts[-1], prompts + len(texts), 0
    return Asked(
        model=str(content.get("model") or ""),
        streaming=content.get("stream") is True,
        on_the_side=not content.get("tools") or _asks_for_a_summary(prompt),
        prompt=prompt,
        prompts=prompts,
        replies=replies,
        characters=characters,
        cwd=_cwd(content),
    )


def _length(said: object) -> int:
    try:
        return len(json.dumps(said))
    except RecursionError:
        return sum(map(len, _texts(said)))


def _asks_for_a_summary(prompt: str) -> bool:
    # The CLI asks for it with the tools of the conversation still listed, and refuses calls in the answer.
    _, found, rest = prompt.partition("TEXT ONLY")
    return bool(found) and "<summary>" in rest


def _prompts(said: object) -> list[str]:
    """Return what a user message holds that somebody said."""
    if isinstance(said, str):
        texts = [said]
    else:
        blocks = json_objects(said)
        if any(block.get("type") == "tool_result" for block in blocks):
            # Text beside the result of a tool belongs to the tool: a skill, for example.
            return []
        texts = [str(block.get("text") or "") for block in blocks if block.get("type") == "text"]
    again = go_on().strip()
    return [text.strip() for text in texts if text.strip() not in {"", again} and not _ASIDE.match(text)]


def _made_up(said: object) -> bool:
    texts = [said] if isinstance(said, str) else [block.get("text") for block in json_objects(said)]
    return bool(texts) and all(isinstance(text, str) and text in _NOT_SAID for text in texts)


def _cwd(content: Mapping[str, Any]) -> str:
    for text in _texts([content.get("system"), content.get("messages")]):
        if found := _CWD.search(text):
            return found.group(1)
    return ""


def _texts(value: object) -> Iterable[str]:
    """Yield every string in *value*: texts of system prompt and messages, in their order."""
    # Not by recursion: what was sent may be nested deeper than that goes.
    todo = [value]
    while todo:
        inner = todo.pop()
        if isinstance(inner, str):
            yield inner
        elif isinstance(inner, Mapping):
            todo.extend(reversed(list(cast("Mapping[str, object]", inner).values())))
        elif isinstance(inner, list):
            todo.extend(reversed(cast("list[object]", inner)))


def json_object(data: bytes | str) -> Mapping[str, Any]:
    """Return the JSON object in *data*; an empty one when there is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return as_object(found)


def as_object(value: object) -> Mapping[str, Any]:
    """Return *value* if it is a JSON object, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def json_objects(value: object) -> list[Mapping[str, Any]]:
    """Return the objects in *value*, if it is a list."""
    return [as_object(item) for item in cast("list[object]", value)] if isinstance(value, list) else []
