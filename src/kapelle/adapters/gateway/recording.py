"""Recording: what the real model said, written as a rehearsal that says it again.

Every reply is one line that is appended: YAML in its JSON style, so that a line which a crash has cut is no YAML and cannot be
taken for a whole one. The line at the end is left out when it has no end; a leader that goes on with the run removes it.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict
from errno import ENOSPC
from pathlib import Path
from typing import Any, cast

from kapelle.adapters.gateway.reading import ReplyReader
from kapelle.adapters.gateway.rehearsal_file import RECORDED, without_cut_end
from kapelle.core.gateway import Ticket
from kapelle.core.shapes import without_shapes

# What a template would take for its own, or change: its marks, a brace before one of them or before a variable, and carriage
# returns, which it makes newlines.
_SPECIAL = re.compile(r"\{[{%#\r]+|\{\Z|\r[{%#\r]*")
# What is no text to YAML, or would be changed by it.
_UNFIT = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
LONGEST_KEY = 500
"""Characters of a key up to which YAML takes it for one without being told."""


Clean = Callable[[str], str]


class Recorder:
    """Writes one rehearsal file, reply by reply."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = False

    def reply(self, ticket: Ticket, reader: ReplyReader, clean: Clean = without_shapes) -> None:
        """Add a reply of the model; *clean* takes out of each text what must not be written down."""
        turn: dict[str, Any] = {}
        if said := reader.text:
            turn["say"] = _literal(clean(said), ticket.cwd)
        if tools := [{name: dict(arguments)} for name, arguments in reader.tools]:
            turn["tools"] = _literal_all(_cleaned(tools, clean), ticket.cwd)
        if not turn:
            turn["say"] = ""
        turn["usage"] = asdict(reader.usage)
        self._add(ticket, turn)

    def error(self, ticket: Ticket, status: int) -> None:
        """Add an error in place of a reply."""
        self._add(ticket, {"error": status})

    def _add(self, ticket: Ticket, turn: dict[str, Any]) -> None:
        when = {"task": ticket.task, "attempt": ticket.attempt, "round": ticket.round}
        line = f"- {_flow({'when': when, 'turns': [turn]})}\n".encode()
        if not self._begun or not self._path.exists():
            head = f"{RECORDED} run {ticket.run_id}: every line is a reply.\n"
            self._begin(head)
            self._begun = True
        with self._path.open("ab", buffering=0) as stream:
            before = stream.tell()
            try:
                whole = stream.write(line) == len(line)
            except OSError:
                os.ftruncate(stream.fileno(), before)
                raise
            if not whole:
                os.ftruncate(stream.fileno(), before)
                raise OSError(ENOSPC, os.strerror(ENOSPC))

    def _begin(self, head: str) -> None:
        """Begin the file anew, or go on where an earlier leader of the same run has been."""
        try:
            there = self._path.read_bytes().decode()
        except (FileNotFoundError, UnicodeDecodeError):
            there = ""
        text = without_cut_end(there).rstrip("\n") + "\n" if there.startswith(head) else f"{head}rules:\n"
        if text != there:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_name(f".{self._path.name}.new")
            beside.write_text(text, encoding="utf-8")
            beside.replace(self._path)


def _flow(value: Any) -> str:
    """Return *value* in one line of YAML."""
    if isinstance(value, dict):
        return f"{{{', '.join(_entry(key, inner) for key, inner in cast('dict[str, Any]', value).items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(_flow(inner) for inner in cast('list[Any]', value))}]"
    written = json.dumps(value, ensure_ascii=False)
    return _UNFIT.sub(lambda found: f"\\u{ord(found.group()):04x}", written) if isinstance(value, str) else written


def _entry(key: str, value: Any) -> str:
    return f"{'? ' if len(key) > LONGEST_KEY else ''}{_flow(key)}: {_flow(value)}"


def _literal(text: str, cwd: str) -> str:
    """Return *text* as a template that gives it back: braces quoted, the working directory as a variable."""
    parts = text.split(cwd) if cwd else [text]
    return "{{ cwd }}".join(_SPECIAL.sub(_quoted, part) for part in parts)


def _quoted(found: re.Match[str]) -> str:
    inner = found.group().replace("\r", "\\r")
    return f"{{{{ '{inner}' }}}}"


def _cleaned(value: Any, clean: Clean) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _cleaned(inner, clean) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_cleaned(inner, clean) for inner in cast("list[Any]", value)]
    return value


def _literal_all(value: Any, cwd: str) -> Any:
    if isinstance(value, str):
        return _literal(value, cwd)
    if isinstance(value, dict):
        return {key: _literal_all(inner, cwd) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_literal_all(inner, cwd) for inner in cast("list[Any]", value)]
    return value
