"""Recording: what the real model said, written as a rehearsal that says it again."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML

from kapelle.core.ports import Ticket


@dataclass(kw_only=True, slots=True)
class _Block:
    kind: str
    name: str = ""
    text: str = ""


@dataclass(kw_only=True, slots=True)
class ReplyReader:
    """Puts a reply together from its server-sent events, cut anywhere, or from one JSON body."""

    blocks: dict[int, _Block] = field(default_factory=dict[int, _Block])
    _rest: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of a streamed reply."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(_mapping(line[5:]))

    def whole(self, body: bytes) -> None:
        """Take a reply that was not streamed."""
        for index, block in enumerate(cast("Sequence[Mapping[str, Any]]", _mapping(body).get("content") or ())):
            if block.get("type") == "text":
                self.blocks[index] = _Block(kind="text", text=str(block.get("text", "")))
            elif block.get("type") == "tool_use":
                text = json.dumps(block.get("input") or {})
                self.blocks[index] = _Block(kind="tool_use", name=str(block.get("name", "")), text=text)

    def _event(self, event: Mapping[str, Any]) -> None:
        index = int(event.get("index") or 0)
        if event.get("type") == "content_block_start":
            block = cast("Mapping[str, Any]", event.get("content_block") or {})
            self.blocks[index] = _Block(kind=str(block.get("type", "")), name=str(block.get("name", "")))
        elif event.get("type") == "content_block_delta" and index in self.blocks:
            delta = cast("Mapping[str, Any]", event.get("delta") or {})
            self.blocks[index].text += str(delta.get("text") or delta.get("partial_json") or "")

    def said(self) -> str:
        """Return the text of the reply."""
        return "".join(block.text for block in self.blocks.values() if block.kind == "text")

    def tools(self) -> list[dict[str, Any]]:
        """Return the tool calls, as a rehearsal writes them."""
        calls = [block for block in self.blocks.values() if block.kind == "tool_use"]
        return [{block.name: _mapping(block.text.encode())} for block in calls]


class Recorder:
    """Writes one rehearsal file, anew and whole after every reply."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rules: dict[tuple[str, int, int], list[dict[str, Any]]] = {}

    def reply(self, ticket: Ticket, reader: ReplyReader, usage: Mapping[str, int]) -> None:
        """Add a reply of the model."""
        turn: dict[str, Any] = {}
        if said := reader.said():
            turn["say"] = _literal(said, ticket.cwd)
        if tools := reader.tools():
            turn["tools"] = _literal_all(tools, ticket.cwd)
        if not turn:
            turn["say"] = ""
        turn["usage"] = dict(usage)
        self._add(ticket, turn)

    def error(self, ticket: Ticket, status: int) -> None:
        """Add an error in place of a reply."""
        self._add(ticket, {"error": status})

    def _add(self, ticket: Ticket, turn: dict[str, Any]) -> None:
        self._rules.setdefault((ticket.task, ticket.attempt, ticket.round), []).append(turn)
        rules = [
            {"when": {"task": task, "attempt": attempt, "round": round_}, "turns": turns}
            for (task, attempt, round_), turns in self._rules.items()
        ]
        yaml = YAML()
        yaml.width = 120
        stream = io.StringIO()
        yaml.dump({"rules": rules}, stream)  # pyright: ignore[reportUnknownMemberType]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(f".{self._path.name}.new")
        beside.write_text(stream.getvalue(), encoding="utf-8")
        beside.replace(self._path)


def _literal(text: str, cwd: str) -> str:
    """Return *text* as a template that gives it back: braces quoted, the working directory as a variable."""
    quoted = text.replace("{%", "{{ '{%' }}").replace("{#", "{{ '{#' }}") if "{{" not in text else _quote(text)
    return quoted.replace(cwd, "{{ cwd }}") if cwd else quoted


def _quote(text: str) -> str:
    parts = text.replace("{{", "\x00").replace("{%", "\x01").replace("{#", "\x02")
    return parts.replace("\x00", "{{ '{{' }}").replace("\x01", "{{ '{%' }}").replace("\x02", "{{ '{#' }}")


def _literal_all(value: Any, cwd: str) -> Any:
    if isinstance(value, str):
        return _literal(value, cwd)
    if isinstance(value, dict):
        return {key: _literal_all(inner, cwd) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_literal_all(inner, cwd) for inner in cast("list[Any]", value)]
    return value


def _mapping(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
