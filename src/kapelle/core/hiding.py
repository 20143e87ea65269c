"""Hiding: known values are cut out of whatever is written down, in the forms in which programs show them.

A form is a string of bytes without a newline. Of all forms the leftmost is cut out, of those that begin there the longest; so
what comes out is the same however the bytes were cut on their way, and a line is never held back: what is held is only the
beginning of a form at the end of what was read, and no form reaches beyond a line.
"""

import base64
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from functools import cached_property

from kapelle.core.frozen import frozen

SHORTEST = 8
"""Characters of a value, at least: anything shorter is found in texts that have nothing to do with it."""
ARMOUR = re.compile(r"-----(?:BEGIN|END) [A-Z0-9 ]+-----")
BASE64_LINES = (57, 48)
"""Bytes in a line of ``base64`` and of ``openssl base64``."""
HEX_LINE = 30
"""Bytes in a line of ``xxd -p``."""
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@frozen
class Secret:
    """A value that is not to be written down, and what it is called."""

    name: str
    value: str = field(repr=False)


@frozen
class Leak:
    """A place in an agent's work that must not be kept as it is, or looks as if it should not."""

    file: str
    """Where, in words for people: mostly the name of a file."""
    secret: str = ""
    """The secret whose value is there."""
    shape: str = ""
    """Or what it only looks like: see ``core.shapes``."""


def mark(name: str) -> str:
    """Return what stands in the place of the value of the secret *name*."""
    return f"[secret {name}]"


class Hiding:
    """Finds the values of secrets, and puts their names in their place."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        names: dict[bytes, str] = {}
        for secret in secrets:
            for form in forms(secret.value):
                names.setdefault(form, secret.name)
        self._names: Mapping[bytes, str] = names
        self._sorted = sorted(names)
        self._longest = max(map(len, names), default=0)

    def __bool__(self) -> bool:
        """Say whether there is anything to hide."""
        return bool(self._names)

    @cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        return re.compile(b"|".join(re.escape(form) for form in sorted(self._names, key=len, reverse=True)))

    def found(self, data: bytes) -> tuple[str, ...]:
        """Return the names of the secrets whose values are in *data*, each once."""
        return tuple(dict.fromkeys(name for form, name in self._names.items() if form in data))

    def hide(self, data: bytes) -> bytes:
        """Return *data* with names in the place of values."""
        done, held = self.cut(data)
        return done + self.end(held)

    def hide_text(self, text: str) -> str:
        """Return *text* with names in the place of values."""
        if not self._names:
            return text
        return self.hide(text.encode(errors="surrogatepass")).decode(errors="surrogatepass")

    def cut(self, data: bytes) -> tuple[bytes, bytes]:
        """Return as much of *data* as does not depend on what follows it, without values; and the rest, as it is."""
        beginnings = list(self._beginnings(data))
        if not any(form in data for form in self._sorted):
            held = beginnings[0] if beginnings else len(data)
            return data[:held], data[held:]
        parts: list[bytes] = []
        position = 0
        while True:
            held = next((at for at in beginnings if at >= position), len(data))
            match = self._pattern.search(data, position)
            if match is None or match.start() >= held:
                return b"".join([*parts, data[position:held]]), data[held:]
            parts += [data[position : match.start()], self._shown(match)]
            position = match.end()

    def end(self, held: bytes) -> bytes:
        """Return what is left of *held* when nothing follows it."""
        return self._pattern.sub(self._shown, held) if self._names and held else held

    def _shown(self, match: re.Match[bytes]) -> bytes:
        return mark(self._names[match.group()]).encode()

    def _beginnings(self, data: bytes) -> Iterator[int]:
        """Yield where the rest of *data* is the beginning of a form, and not all of it."""
        first = max(len(data) - self._longest + 1, data.rfind(b"\n") + 1, 0)
        for at in range(first, len(data)):
            rest = data[at:]
            index = bisect_left(self._sorted, rest)
            if index < len(self._sorted) and self._sorted[index] == rest:
                index += 1
            if index < len(self._sorted) and self._sorted[index].startswith(rest):
                yield at


NOTHING = Hiding(())
"""Hides nothing."""


class Stream:
    """Hides what is in a stream of bytes that comes in pieces, cut anywhere."""

    def __init__(self, hiding: Hiding) -> None:
        self._hiding = hiding
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what may be shown of all so far."""
        done, self._held = self._hiding.cut(self._held + data)
        return done

    def rest(self) -> bytes:
        """Return what was held back, at the end of the stream or where nothing more is awaited."""
        held, self._held = self._held, b""
        return self._hiding.end(held)


def forms(value: str) -> frozenset[bytes]:
    """Return the forms in which *value* is shown by programs; a value of several lines also line by line."""
    found = {value}
    if "\n" in value:
        # What stands round a key is no secret, and stands round others, too.
        found = {line for line in value.splitlines() if not ARMOUR.fullmatch(line.strip())}
    found |= {form for text in (value, *found) for form in _escaped(text)}
    data = value.encode()
    found |= set(_quoted(data)) | {data.hex(), data.hex().upper()}
    found |= set(_in_base64(data)) | set(_in_lines(data))
    return frozenset(form.encode() for form in found if len(form) >= SHORTEST and "\n" not in form)


def _escaped(text: str) -> Iterator[str]:
    """Yield *text* as it stands within JSON, and within JSON within JSON."""
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
        yield once.replace("/", "\\/")


def _quoted(data: bytes) -> Iterator[str]:
    """Yield *data* as it stands in the address of a page."""
    for also in (b"", b"/", b"/:@!$&'()*+,;="):
        for space in ("%20", "+"):
            for letters in ("%{:02X}", "%{:02x}"):
                yield "".join(
                    chr(byte) if byte in UNRESERVED or byte in also else space if byte == ord(" ") else letters.format(byte)
                    for byte in data
                )


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield what of *data* in base64 does not depend on what stands round it, for each of the three ways it may be aligned."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        # Letters of six bits: the first may hold some of what stands before, the last some of what follows.
        first = (before * 8 + 5) // 6
        last = (before + len(data)) * 8 // 6
        text = whole[first:last]
        yield text
        yield text.replace("+", "-").replace("/", "_")
        yield from _quoted(text.encode())


def _in_lines(data: bytes) -> Iterator[str]:
    """Yield the lines of *data* in base64 and in hexadecimal digits, as programs break them."""
    for size in BASE64_LINES:
        if len(data) > size:
            for start in range(0, len(data), size):
                line = data[start : start + size]
                yield base64.b64encode(line).decode()[: len(line) * 8 // 6]
    if len(data) > HEX_LINE:
        yield from (data[start : start + HEX_LINE].hex() for start in range(0, len(data), HEX_LINE))
