"""YAML files with places: every mistake is told with its line and column, and all of them together."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kapelle.core.errors import FileInvalid, FileMissing, Mistake, closest

M = TypeVar("M", bound=BaseModel)
Path_ = Sequence[str | int]


class Document:
    """A YAML file that was read, with the place of everything in it."""

    def __init__(self, file: str, content: Any) -> None:
        self.file = file
        self.content = content
        self.mistakes: list[Mistake] = []
        """What ``fit`` found wrong."""

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Read the file at *path*.

        Raises:
            FileMissing: it is not there or cannot be read.
            FileInvalid: it is no YAML.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise FileMissing(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            mistake = Mistake(message="this is no UTF-8 text", advice="save it as UTF-8", file=str(path), line=1, column=1)
            raise FileInvalid([mistake]) from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, file: str) -> "Document":
        """Read *text*, which came from *file*.

        Raises:
            FileInvalid: it is no YAML.
        """
        # Loaded where there is something to read: looking at what runs needs no file.
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            return cls(file, YAML(typ="rt").load(text))  # pyright: ignore[reportUnknownMemberType]
        except MarkedYAMLError as error:
            marked: Any = error
            mark = marked.problem_mark or marked.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            problem = str(marked.problem or marked.context or "this is no YAML").splitlines()[0]
            advice = "check the indentation and the quotes of this line and the one before"
            mistake = Mistake(message=problem, advice=advice, file=file, line=line, column=column)
            raise FileInvalid([mistake]) from error
        except YAMLError as error:
            mistake = Mistake(message=str(error).splitlines()[0], advice="check the syntax", file=file, line=1, column=1)
            raise FileInvalid([mistake]) from error

    def place(self, path: Path_) -> tuple[int, int]:
        """Return line and column (from 1) of what *path* leads to, or of the last thing on the way that exists."""
        node, place = self.content, (1, 1)
        for part in path:
            found = _place_of(node, part)
            if found is None:
                continue
            place, node = found
        return place

    def located(self, mistake: Mistake) -> Mistake:
        """Return *mistake* with file, line and column."""
        line, column = self.place(mistake.path)
        return Mistake(
            message=mistake.message, advice=mistake.advice, path=mistake.path, file=self.file, line=line, column=column
        )

    def plain(self) -> Any:
        """Return the content as plain dictionaries, lists and values."""
        return _plain(self.content)

    def fit(self, model: type[M]) -> tuple[M | None, list[Mistake]]:
        """Return the content as *model* and every reason why it is none.

        Where it can be, a model is made of what remains without the mistakes, so that what else is wrong can be told with
        them. With mistakes it is good for nothing else.
        """
        content = self.plain()
        if content is None:
            content = {}
        if not isinstance(content, Mapping):
            advice = f"begin with one of: {', '.join(model.model_fields)}"
            self.mistakes = [self.located(Mistake(message="the file holds no mapping of names to values", advice=advice))]
            return None, self.mistakes
        try:
            return model.model_validate(content), []
        except ValidationError as error:
            self.mistakes = [self.located(_mistake(entry, model)) for entry in error.errors()]
        given = cast("Mapping[str, Any]", content)
        try:
            return model.model_validate(_without(given, [mistake.path for mistake in self.mistakes])), self.mistakes
        except ValidationError:
            return None, self.mistakes

    def with_further(self, further: Sequence[Mistake]) -> list[Mistake]:
        """Return all mistakes in the order of the file, less those of *further* that only follow from what ``fit`` found."""
        broken = [tuple(mistake.path) for mistake in self.mistakes]
        own = [self.located(mistake) for mistake in further if not _follows(tuple(mistake.path), broken)]
        return sorted([*self.mistakes, *own], key=lambda mistake: (mistake.line, mistake.column))


def _follows(path: tuple[str | int, ...], broken: Sequence[tuple[str | int, ...]]) -> bool:
    """Say whether *path* is something broken, or lies in it."""
    return any(path[: len(other)] == other for other in broken)


def _without(content: Mapping[str, Any], paths: Sequence[Path_]) -> Mapping[str, Any]:
    """Return *content* without what *paths* lead to; in a list, without the list."""
    copy = cast("dict[str, Any]", _plain(content))
    for path in paths:
        node: Any = copy
        for index, part in enumerate(path):
            inner = cast("dict[Any, Any]", node).get(part) if isinstance(node, dict) else None
            if isinstance(inner, dict) and index < len(path) - 1:
                node = cast("dict[Any, Any]", inner)
                continue
            if isinstance(node, dict):
                cast("dict[Any, Any]", node).pop(part, None)
            break
    return copy


def _place_of(node: Any, part: str | int) -> tuple[tuple[int, int], Any] | None:
    """Return the place of *part* in *node* and what is there; None when there is nothing."""
    lc = getattr(node, "lc", None)
    if lc is None:
        return None
    if isinstance(node, Mapping):
        mapping = cast("Mapping[Any, Any]", node)
        if part not in mapping:
            return None
        line, column = lc.key(part)
        return (line + 1, column + 1), mapping[part]
    if isinstance(node, Sequence) and isinstance(part, int):
        items = cast("Sequence[Any]", node)
        if part >= len(items):
            return None
        line, column = lc.item(part)
        return (line + 1, column + 1), items[part]
    return None


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        mapping = cast("Mapping[Any, Any]", node)
        return {str(key): _plain(value) for key, value in mapping.items()}
    if isinstance(node, list):
        return [_plain(value) for value in cast("list[Any]", node)]
    # Strings, numbers and dates with memories of their formatting become plain ones.
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if isinstance(node, date):
        # YAML knows times, JSON does not: whoever wants one reads it from the text.
        return node.isoformat()
    return node


def _mistake(error: ErrorDetails, model: type[BaseModel]) -> Mistake:
    path = tuple(part for part in error["loc"])
    # Of a place in a list the list's name tells more than a number does.
    name = next((str(part) for part in reversed(path) if isinstance(part, str)), "")
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        return Mistake(message=f"{name} means nothing here", advice=closest(name, _siblings(path, model)), path=path)
    if kind == "missing":
        return Mistake(message=f"{name} is missing", advice=f"add {name}: ...", path=path)
    if kind == "value_error":
        text = message.removeprefix("Value error, ")
        said, _, advice = text.partition("; ")
        return Mistake(message=f"{name}: {said}", advice=advice or "see the reference of this file", path=path)
    if kind in {"enum", "literal_error"}:
        expected = str(error.get("ctx", {}).get("expected", ""))
        return Mistake(message=f"{name}: {error['input']!r} is not possible", advice=f"one of: {expected}", path=path)
    given = type(error["input"]).__name__
    return Mistake(message=f"{name}: {message[0].lower()}{message[1:]}", advice=f"what is there is of type {given}", path=path)


def _siblings(path: Path_, model: type[BaseModel]) -> list[str]:
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
