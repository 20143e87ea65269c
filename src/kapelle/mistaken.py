"""What is wrong with values that do not fit a model, in our words: none of the library that checks them is shown."""

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kapelle.core.errors import Mistake, closest
from kapelle.core.expected import expected, given

Path = tuple[str | int, ...]
KEY = "[key]"
"""What the library puts behind a key that is itself the mistake."""


def mistakes_in(error: ValidationError, content: object, model: type[BaseModel]) -> list[Mistake]:
    """Return every mistake that *error* tells of, one for each place of *content*, without the places."""
    found: dict[Path, list[ErrorDetails]] = {}
    for entry in error.errors():
        found.setdefault(_real(entry, content), []).append(entry)
    # Where one of several kinds of value is allowed, what is wrong within one says more than that it is none of the rest.
    within = {path[:length] for path in found for length in range(len(path))}
    told = {path: entries for path, entries in found.items() if path not in within or KEY in entries[0]["loc"]}
    return [_mistake(path, entries, model) for path, entries in told.items()]


def wrong(entry: ErrorDetails) -> tuple[str, str]:
    """Return what is wrong with one value, to be read after its name, and what to write instead."""
    if entry["type"] == "value_error":
        # What our own models refuse they say in our words.
        said, _, advice = entry["msg"].removeprefix("Value error, ").partition("; ")
        return f": {said}", advice or "see the reference of this file"
    allowed = expected(entry["type"], entry.get("ctx", {}))
    advice = allowed if allowed.startswith("one of") else f"write {allowed}"
    return f" cannot be {given(entry['input'])}", advice


def _real(entry: ErrorDetails, content: object) -> Path:
    """Return the place of a mistake in *content*: without the kinds of value that the library names on its way there."""
    node, path, last = content, list[str | int](), len(entry["loc"]) - 1
    for index, part in enumerate(entry["loc"]):
        if isinstance(node, Mapping) and part in node:
            node = cast("Mapping[Any, Any]", node)[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(cast("list[Any]", node)):
            node = cast("list[Any]", node)[part]
        elif index != last or entry["type"] != "missing":
            continue
        path.append(part)
    return tuple(path)


def _mistake(path: Path, entries: Sequence[ErrorDetails], model: type[BaseModel]) -> Mistake:
    # Of a place in a list the list's name tells more than a number does.
    name = next((str(part) for part in reversed(path) if isinstance(part, str)), "this file")
    first = entries[0]
    if first["type"] == "extra_forbidden":
        return Mistake(message=f"{name} means nothing here", advice=closest(name, _siblings(path, model)), path=path)
    if first["type"] == "missing":
        return Mistake(message=f"{name} is missing", advice=f"add {name}: ...", path=path)
    said, advice = wrong(first)
    if KEY in first["loc"] and said.startswith(": "):
        return Mistake(message=said.removeprefix(": "), advice=advice, path=path)
    if len(entries) > 1:
        ways = dict.fromkeys(expected(entry["type"], entry.get("ctx", {})) for entry in entries)
        advice = f"write {', or '.join(ways)}"
    return Mistake(message=f"{name}{said}", advice=advice, path=path)


def _siblings(path: Path, model: type[BaseModel]) -> list[str]:
    """Return the names that are known where *path* ends."""
    kind: Any = model
    for part in path[:-1]:
        kind = _step(kind, part)
    for option in _options(kind):
        if fields := getattr(option, "model_fields", None):
            return [field.alias or name for name, field in fields.items()]
    return []


def _step(kind: Any, part: str | int) -> Any:
    """Return the type of what *part* leads to in something of the type *kind*."""
    for option in _options(kind):
        if fields := getattr(option, "model_fields", None):
            by_name = {field.alias or name: field for name, field in fields.items()}
            if str(part) in by_name:
                return by_name[str(part)].annotation
        elif get_origin(option) is dict:
            return get_args(option)[1]
        elif get_origin(option) is list:
            return get_args(option)[0]
    return None


def _options(kind: Any) -> list[Any]:
    """Return what an annotation stands for: each side of a union, and what is inside of Annotated."""
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        return [inner for option in get_args(kind) for inner in _options(option)]
    return [kind]
