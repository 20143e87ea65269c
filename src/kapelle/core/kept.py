"""What is kept of what an agent says: whatever a driver makes of a program's output goes through here into the store."""

import json
from typing import TypeVar

from kapelle.core.conversation import ConversationEvent, Said, ToolCalled, ToolReturned, TurnEnded, Typed, Unrecognised
from kapelle.core.frozen import replace
from kapelle.core.limits import DEEPEST, LONGEST_RESULT, LONGEST_SUMMARY, LONGEST_TOLD
from kapelle.core.shapes import without_shapes

SHORT = 2_000
"""Characters of what is only there to give an idea."""
_MORE = " [...]"


def kept(event: ConversationEvent) -> ConversationEvent:
    """Return *event* with as much of its texts as is kept, and nothing in them that looks like a credential."""
    return _cut(_clean(event))


def _clean(event: ConversationEvent) -> ConversationEvent:
    match event:
        case Said(text=text) | Typed(text=text):
            return _with(event, text=text)
        case ToolCalled(tool=tool, about=about):
            return _with(event, tool=tool, about=about)
        case ToolReturned(about=about):
            return _with(event, about=about)
        case Unrecognised(kind=kind, raw=raw):
            return _with(event, kind=kind, raw=raw)
        case TurnEnded(text=text, message=message, result=result):
            return _with(event, text=text, message=message, result=result)
        case _:
            return event


E = TypeVar("E", bound=ConversationEvent)


def _with(event: E, **texts: str | None) -> E:
    changed = {name: clean for name, text in texts.items() if text is not None and (clean := without_shapes(text)) is not text}
    return replace(event, **changed) if changed else event


def _cut(event: ConversationEvent) -> ConversationEvent:
    match event:
        case Said(text=text) if len(text) > LONGEST_TOLD:
            return Said(text=cut(text, LONGEST_TOLD))
        case Typed(text=text) if len(text) > LONGEST_TOLD:
            return Typed(text=cut(text, LONGEST_TOLD))
        case ToolCalled(tool=tool, about=about) if len(tool) + len(about) > SHORT:
            return replace(event, tool=cut(tool, SHORT), about=cut(about, SHORT))
        case ToolReturned(about=about) if len(about) > SHORT:
            return replace(event, about=cut(about, SHORT))
        case Unrecognised(kind=kind, raw=raw) if len(kind) + len(raw) > SHORT:
            return Unrecognised(kind=cut(kind, 100), raw=cut(raw, SHORT))
        case TurnEnded(text=text, message=message, denied=denied) if len(text) + len(message) + len(denied) > SHORT:
            few = tuple(cut(name, 200) for name in denied[:20])
            return replace(event, text=cut(text, LONGEST_SUMMARY), message=cut(message, LONGEST_TOLD), denied=few)
        case _:
            return event


def cut(text: str, longest: int) -> str:
    """Return *text*, or its beginning with a mark that there was more."""
    return text if len(text) <= longest else text[: longest - len(_MORE)] + _MORE


def result_unkept(result: str | None) -> str:
    """Return why a structured *result* (JSON text) is not kept, or nothing."""
    if result is None:
        return ""
    if len(result) > LONGEST_RESULT:
        return f"its structured result has {len(result)} characters; {LONGEST_RESULT} are the most that is kept"
    if depth(result) > DEEPEST:
        return f"its structured result is nested more than {DEEPEST} deep"
    try:
        json.loads(result, parse_constant=_none)
    except (ValueError, RecursionError) as error:
        return f"its structured result is no JSON: {error}"
    return ""


def depth(text: str) -> int:
    """Return how deep the JSON *text* is nested."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return 0
    deepest = level = 0
    inside = escaped = False
    for letter in text:
        if inside:
            inside = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            inside = True
        elif letter in "[{":
            level += 1
            deepest = max(deepest, level)
        elif letter in "]}":
            level -= 1
    return deepest


def _none(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
