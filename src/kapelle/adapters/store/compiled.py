"""The queries as they were compiled when this version was made, and the schema: nobody has to load SQLAlchemy for SQLite.

``tools/write-reference`` writes compiled.json, and `make check` sees to it that it is what ``statements`` says. While somebody
works on the statements the file is not used: it knows what it was made from.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

from kapelle.adapters.store.rows import Apart, Layout, Mapper, Statement, Text
from kapelle.core.frozen import frozen

if TYPE_CHECKING:
    from kapelle.adapters.store.statements import Statements

FOLDER = Path(__file__).parent
FILE = FOLDER / "compiled.json"
SOURCES = ("clauses.py", "computed.py", "rows.py", "schema.py", "statements.py")
GROUPS = (
    *("runs", "tasks", "history", "attempts", "agents", "pool", "accounts", "questions", "brakes"),
    *("changes", "log", "usage"),
)


@frozen
class Compiled:
    """Queries, and the schema that they are for."""

    statements: "Statements"
    head: str
    schema: tuple[str, ...]
    """What makes a new store with that schema."""


def made_from() -> str:
    """Return what identifies the modules that the queries are made by."""
    sources = [*(FOLDER / name for name in SOURCES), *sorted((FOLDER / "migrations" / "versions").glob("v*.py"))]
    return f"{crc32(b''.join(source.read_bytes() for source in sources)):08x}"


def dump(statements: "Statements", head: str, schema: Sequence[str]) -> str:
    """Return *statements* as JSON text; *head* names the schema that they are for, and *schema* makes it."""
    groups: dict[str, dict[str, Any]] = {}
    for group in GROUPS:
        things = cast("dict[str, Any]", vars(getattr(statements, group)))
        groups[group] = {name: _down(thing) for name, thing in things.items()}
    return json.dumps({"made_from": made_from(), "head": head, "schema": list(schema), **groups}, indent=1) + "\n"


@cache
def load(file: Path = FILE) -> "Compiled | None":
    """Return the queries, or None when the modules have changed since they were compiled."""
    found = json.loads(file.read_text(encoding="utf-8"))
    if found.pop("made_from") != made_from():
        return None
    head, schema = found.pop("head"), tuple(found.pop("schema"))
    statements = SimpleNamespace(**{group: _Group(entries) for group, entries in found.items()})
    return Compiled(statements=cast("Statements", statements), head=head, schema=schema)


class _Group:
    """Queries of one group, made when they are first asked for."""

    def __init__(self, entries: dict[str, Any]) -> None:
        self._entries = entries

    def __getattr__(self, name: str) -> Any:
        thing = _up(self._entries[name])
        setattr(self, name, thing)
        return thing


def _down(thing: Any) -> Any:
    if isinstance(thing, Statement):
        return _text(thing)
    mapper: Mapper[Any] = thing
    layout = mapper.layout
    apart = layout.apart
    return {
        "kind": _name(mapper.kind),
        "columns": list(layout.columns),
        "key": layout.key,
        **{name: _text(getattr(layout, name)) for name in ("add", "put", "get")},
        "apart": None if apart is None else {"name": apart.name, "read": _text(apart.read), "add": _text(apart.add)},
        "computed": {name: _name(function) for name, function in layout.computed.items()},
        "numbered": layout.numbered,
    }


def _text(statement: Statement) -> dict[str, Any]:
    compiled = statement.compiled
    return {"text": compiled.text, "names": compiled.names, "fixed": compiled.fixed}


def _name(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _up(entry: dict[str, Any]) -> Any:
    if "text" in entry:
        return _statement(entry)
    apart = entry["apart"]
    layout = Layout(
        columns=entry["columns"],
        key=entry["key"],
        add=_statement(entry["add"]),
        put=_statement(entry["put"]),
        get=_statement(entry["get"]),
        apart=apart and Apart(name=apart["name"], read=_statement(apart["read"]), add=_statement(apart["add"])),
        computed={name: _thing(place) for name, place in entry["computed"].items()},
        numbered=entry["numbered"],
    )
    return Mapper(_thing(entry["kind"]), layout)


def _statement(entry: dict[str, Any]) -> Statement:
    return Statement(lambda: Text(text=entry["text"], names=tuple(entry["names"]), fixed=entry["fixed"]))


def _thing(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
