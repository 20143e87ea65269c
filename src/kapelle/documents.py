"""YAML files with places: every mistake is told with its line and column, and all of them together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from kapelle.core.errors import FileInvalid, FileMissing, Mistake
from kapelle.core.limits import DEEPEST, LONGEST_FILE, MOST_VALUES
from kapelle.mistaken import mistakes_in

M = TypeVar("M", bound=BaseModel)
WORDS = 300
"""Characters of what was given that a mistake tells."""
LONGEST_KEY = 1_000
"""Characters of a key; none that means anything is so long."""
Path_ = Sequence[str | int]


class Document:
    """A YAML file that was read, with the place of everything in it."""

    def __init__(self, file: str, content: Any) -> None:
        self.file = file
        self.content = content
        self.mistakes: list[Mistake] = []
        """What ``fit`` found wrong."""

    @classmethod
    def read(cls, path: Path, *, whole: Callable[[str], str] = str) -> "Document":
        """Read the file at *path*; *whole* returns as much of a text as is meant to be read.

        Raises:
            FileMissing: it is not there or cannot be read.
            FileInvalid: it is no YAML.
        """
        try:
            with path.open("rb") as stream:
                # No further: a device or a pipe may have no end.
                data = stream.read(LONGEST_FILE + 1)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise FileMissing(f"{path} cannot be read: {why}") from error
        file = str(path)
        if len(data) > LONGEST_FILE:
            message, advice = f"this file has more than {LONGEST_FILE} bytes", "keep long texts in files of the repository"
            raise FileInvalid([Mistake(message=message, advice=advice, file=file, line=1, column=1)])
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[: error.start].decode(errors="replace")
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            message = f"this is no UTF-8 text (byte 0x{data[error.start]:02x})"
            mistake = Mistake(message=message, advice="save it as UTF-8", file=file, line=line, column=column)
            raise FileInvalid([mistake]) from error
        return cls.parse(whole(text), file)

    @classmethod
    def parse(cls, text: str, file: str) -> "Document":
        """Read *text*, which came from *file*.

        Raises:
            FileInvalid: it is no YAML.
        """
        # Loaded where there is something to read: looking at what runs needs no file.
        from kapelle.bounded_yaml import load

        return cls(file, load(text, file))

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
        return _plain(self.content, [MOST_VALUES], DEEPEST)

    def fit(self, model: type[M], *, any_text: bool = False) -> tuple[M | None, list[Mistake]]:
        """Return the content as *model* and every reason why it is none.

        With *any_text* it may hold what no program takes: a model says that too, and a recording keeps it.

        Where it can be, a model is made of what remains without the mistakes, so that what else is wrong can be told with
        them. With mistakes it is good for nothing else.
        """
        try:
            content = self.plain()
        except _Bomb:
            message = f"its aliases make more than {MOST_VALUES} values of it, or values within themselves"
            advice = "write out what the aliases stand for; a file needs few of them"
            self.mistakes = [self.located(Mistake(message=message, advice=advice))]
            return None, self.mistakes
        if content is None:
            content = {}
        if not isinstance(content, Mapping):
            advice = f"begin with one of: {', '.join(model.model_fields)}"
            self.mistakes = [self.located(Mistake(message="the file holds no mapping of names to values", advice=advice))]
            return None, self.mistakes
        if not any_text and (unsayable := [self.located(mistake) for mistake in _unsayable(content, ())]):
            self.mistakes = unsayable
            return None, self.mistakes
        try:
            return model.model_validate(content), []
        except ValidationError as error:
            self.mistakes = [self.located(mistake) for mistake in mistakes_in(error, cast("object", content), model)]
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


def _unsayable(value: Any, path: tuple[str | int, ...]) -> Iterator[Mistake]:
    """Yield a mistake for every text that no program, no file and no store takes: one with a NUL, or half a letter."""
    if isinstance(value, str):
        half = next((letter for letter in value if "\ud800" <= letter <= "\udfff"), None)
        if "\0" in value or half is not None:
            what = "the character U+0000" if half is None else f"half a letter (U+{ord(half):04X})"
            name = next((str(part) for part in reversed(path) if isinstance(part, str)), "it")
            shown = name.encode(errors="backslashreplace").decode().replace("\0", "\\0")
            yield Mistake(message=f"{shown[:WORDS]} holds {what}", advice="leave it out", path=path)
    elif isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            yield from _unsayable(key, (*path, key))
            yield from _unsayable(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(cast("list[Any]", value)):
            yield from _unsayable(inner, (*path, index))


def _follows(path: tuple[str | int, ...], broken: Sequence[tuple[str | int, ...]]) -> bool:
    """Say whether *path* is something broken, or lies in it."""
    return any(path[: len(other)] == other for other in broken)


def _without(content: Mapping[str, Any], paths: Sequence[Path_]) -> Mapping[str, Any]:
    """Return *content* without what *paths* lead to; in a list, without the list."""
    copy = cast("dict[str, Any]", _plain(content, [MOST_VALUES], DEEPEST))
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


class _Bomb(Exception):
    """Aliases that stand for aliases, and so on: a few lines that make gigabytes."""


def _plain(node: Any, left: list[int], deeper: int) -> Any:
    left[0] -= 1
    if left[0] < 0 or deeper < 0:
        raise _Bomb
    if isinstance(node, Mapping):
        mapping = cast("Mapping[Any, Any]", node)
        return {str(key)[:LONGEST_KEY]: _plain(value, left, deeper - 1) for key, value in mapping.items()}
    if isinstance(node, list):
        return [_plain(value, left, deeper - 1) for value in cast("list[Any]", node)]
    # Strings, numbers and dates with memories of their formatting become plain ones.
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if isinstance(node, date):
        # YAML knows times, JSON does not: whoever wants one reads it from the text.
        return node.isoformat()
    # Bytes, sets, and what has a tag that nobody knows: whatever is expected there, it is not this.
    return node
