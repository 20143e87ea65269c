"""Lines out of bytes that are cut anywhere, with a bound for those that never end; and the JSON in a line."""

import json
from collections.abc import Iterator
from typing import Any

from kapelle.core.conversation import Said

LONGEST = 16 << 20
"""Bytes of a line beyond which it is not a message any more; it is dropped to its end."""


class Lines:
    """Gives whole lines, without their newline, as bytes arrive."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0
        self._dropping = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Yield every line that *data* ends; None for one that was too long and dropped."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            yield None if self._dropping else b"".join(self._parts)
            self._parts, self._size, self._dropping = [], 0, False
        self._add(rest)

    def rest(self) -> bytes:
        """Return what is left without a newline at the end."""
        return b"" if self._dropping else b"".join(self._parts)

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._longest:
            self._parts, self._dropping = [], True
        elif part and not self._dropping:
            self._parts.append(part)


TOLD = 100_000
"""Characters of a program's output that become events."""


class Telling:
    """Lines of a program's output as events; after very many nothing more: all of it is in the spool."""

    LINE = 2_000

    def __init__(self) -> None:
        self._told = 0

    def tell(self, line: bytes) -> tuple[str, list[Said]]:
        """Return the text of *line*, and what of it is told."""
        text = line[: 4 * self.LINE].decode(errors="replace").rstrip()[: self.LINE]
        if self._told >= TOLD:
            return text, []
        self._told += len(text)
        more = [Said(text="(more is not told; all of it is in the spool)")] if self._told >= TOLD else []
        return text, [Said(text=text), *more]


def _none(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def json_in(line: bytes) -> Any:
    """Return the JSON in *line*.

    Half a letter, as programs leave it that cut a text between the two escapes of one, becomes a question mark: it cannot be
    written down.

    Raises:
        ValueError: it holds none, or one that is nested too deeply.
    """
    text = line.decode()
    try:
        content = json.loads(text, parse_constant=_none)
        if "\\ud" in text or "\\uD" in text:
            content = json.loads(json.dumps(content, ensure_ascii=False).encode(errors="replace"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return content
