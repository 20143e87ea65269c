"""Recording: what the real model said, written as a rehearsal that says it again."""

import io
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from kapelle.adapters.gateway.reading import ReplyReader
from kapelle.core.gateway import Ticket

# What a template would take for its own, or change: its marks, a brace before one of them or before a variable, and carriage
# returns, which it makes newlines.
_SPECIAL = re.compile(r"\{[{%#\r]+|\{\Z|\r[{%#\r]*")
_BREAKS = re.compile("[\x85\u2028\u2029]")


class Recorder:
    """Writes one rehearsal file, anew and whole after every reply."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rules: dict[tuple[str, int, int], list[dict[str, Any]]] = {}

    def reply(self, ticket: Ticket, reader: ReplyReader) -> None:
        """Add a reply of the model."""
        turn: dict[str, Any] = {}
        if said := reader.text:
            turn["say"] = _literal(said, ticket.cwd)
        if tools := [{name: dict(arguments)} for name, arguments in reader.tools]:
            turn["tools"] = _literal_all(tools, ticket.cwd)
        if not turn:
            turn["say"] = ""
        turn["usage"] = asdict(reader.usage)
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
    parts = text.split(cwd) if cwd else [text]
    return _whole("{{ cwd }}".join(_SPECIAL.sub(_quoted, part) for part in parts))


def _whole(text: str) -> str:
    """Return *text* so that YAML keeps all of it: these line breaks come through only as escapes."""
    return DoubleQuotedScalarString(text) if _BREAKS.search(text) else text


def _quoted(found: re.Match[str]) -> str:
    inner = found.group().replace("\r", "\\r")
    return f"{{{{ '{inner}' }}}}"


def _literal_all(value: Any, cwd: str) -> Any:
    if isinstance(value, str):
        return _literal(value, cwd)
    if isinstance(value, dict):
        return {_whole(key): _literal_all(inner, cwd) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_literal_all(inner, cwd) for inner in cast("list[Any]", value)]
    return value
