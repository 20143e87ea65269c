"""YAML text into values that know their places: no deeper and no more than any file of a person needs.

Loaded where there is something to read (see ``documents``): looking at what runs needs no file.
"""

from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import RoundTripScanner, ScannerError

from kapelle.core.errors import FileInvalid, Mistake
from kapelle.core.limits import DEEPEST, MOST_LINES, MOST_VALUES

WORDS = 300
"""Characters of what is wrong that are told: it may quote the file."""
LONGEST_TAG = 200
SHORTER = "keep long texts in files of the repository"
TOO_DEEP = f"this is nested more than {DEEPEST} deep"
STANDARD = "tag:yaml.org,2002:"
KINDS = frozenset({"map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value"})
NAMES = {"int": "whole number", "float": "number", "timestamp": "date", "bool": "true or false"}


def load(text: str, file: str) -> Any:
    """Return what the YAML *text*, which came from *file*, holds.

    Raises:
        FileInvalid: it is no YAML, or too much of it.
    """
    if text.count("\n") > MOST_LINES:
        message = f"this file has more than {MOST_LINES} lines"
        raise FileInvalid([Mistake(message=message, advice=SHORTER, file=file, line=MOST_LINES, column=1)])
    reader = YAML(typ="rt")
    reader.Composer, reader.Constructor, reader.Scanner = _BoundedComposer, _PlacingConstructor, _BoundedScanner
    try:
        return reader.load(text)  # pyright: ignore[reportUnknownMemberType]
    except ReaderError as error:
        position = int(cast("Any", error).position)
        line, column = line_and_column(text[:position])
        message = f"the character U+{ord(text[position]):04X} cannot be in YAML"
        advice = "leave it out; in double quotes it may be written as an escape"
        mistake = Mistake(message=message, advice=advice, file=file, line=line, column=column)
        raise FileInvalid([mistake]) from error
    except RecursionError as error:
        raise FileInvalid([Mistake(message=TOO_DEEP, advice="make it flatter", file=file, line=1, column=1)]) from error
    except MarkedYAMLError as error:
        marked: Any = error
        mark = marked.problem_mark or marked.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        problem = str(marked.problem or marked.context or "this is no YAML").splitlines()[0][:WORDS]
        advice = "check the indentation and the quotes of this line and the one before"
        mistake = Mistake(message=problem, advice=advice, file=file, line=line, column=column)
        raise FileInvalid([mistake]) from error
    except YAMLError as error:
        mistake = Mistake(message=str(error).splitlines()[0][:WORDS], advice="check the syntax", file=file, line=1, column=1)
        raise FileInvalid([mistake]) from error


def line_and_column(before: str) -> tuple[int, int]:
    """Return the place that comes after the text *before*."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class _BoundedScanner(RoundTripScanner):
    """Gives up a tag that never ends: looking for its end takes ever longer."""

    def scan_tag(self) -> Any:
        scanner: Any = super()
        ahead: str = cast("Any", self).reader.prefix(LONGEST_TAG)
        if len(ahead) == LONGEST_TAG and not any(letter.isspace() for letter in ahead):
            raise ScannerError(None, None, "this tag has no end", cast("Any", self).reader.get_mark())
        return scanner.scan_tag()


class _BoundedComposer(Composer):
    """Gives up where it becomes too deep or too much: reading YAML takes its time."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)  # pyright: ignore[reportUnknownMemberType]
        # YAML allows them, and nobody reads warnings here.
        self.warn_double_anchors = False
        self._left = MOST_VALUES
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._left -= 1
        self._depth += 1
        try:
            if self._left < 0:
                self._refuse(f"this file holds more than {MOST_VALUES} values")
            if self._depth > DEEPEST:
                self._refuse(TOO_DEEP)
            return super().compose_node(parent, index)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        finally:
            self._depth -= 1

    def _refuse(self, why: str) -> None:
        parser: Any = self.parser  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        mark: Any = cast("Any", parser).peek_event().start_mark
        raise ComposerError(None, None, why, mark)


class _PlacingConstructor(RoundTripConstructor):
    """Says of a value that is none where it is."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        kind = str(node.tag).rpartition(":")[2].rstrip("'\")")
        if f"{STANDARD}{kind}" not in str(node.tag) or kind not in KINDS:
            raise ConstructorError(None, None, "a tag means nothing here: only plain values do", node.start_mark)
        try:
            return super().construct_object(node, deep)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        except YAMLError:
            raise
        except Exception as error:  # the library trusts a tag to be right about what it stands before
            why = f": {str(error)[:WORDS]}" if isinstance(error, ValueError) else ""
            raise ConstructorError(None, None, f"this is no {NAMES.get(kind, kind)}{why}", node.start_mark) from error
