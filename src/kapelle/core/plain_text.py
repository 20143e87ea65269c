"""Text of others as it may be shown: what agents, files and people say cannot steer a terminal or forge a line."""

import re
from collections.abc import Iterable

_STEERS = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # control codes: ESC, C1 and what is no newline or tab
    r"\u2028\u2029"  # separators of lines and paragraphs
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # what turns the direction of writing
    r"\ud800-\udfff"  # bytes of a file name that are no text
)
_IN_A_BLOCK = re.compile(f"[{_STEERS}]")
_IN_A_LINE = re.compile(rf"[\t\n{_STEERS}]")
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
_NEEDS_QUOTES = re.compile(r"""[\s,:;"'`\\]""")


def shown(text: str) -> str:
    r"""Return *text* as one line in which whatever steers a terminal is seen: ``\x1b``, ``\n``, ``\u202e``."""
    return _IN_A_LINE.sub(_escape, text)


def shown_block(text: str) -> str:
    """Return *text* as ``shown`` does, with its newlines and tabs as they are."""
    return _IN_A_BLOCK.sub(_escape, text.replace("\r\n", "\n"))


def shown_json(text: str) -> str:
    r"""Return *text*, which is JSON, with whatever steers a terminal as an escape of JSON's own: it is read as the same."""
    return _IN_A_BLOCK.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shown_file(name: str) -> str:
    """Return the name of a file as it stands in a list or a sentence: quoted when it could be taken for something else."""
    line = shown(name)
    if line == name and name and not _NEEDS_QUOTES.search(name):
        return name
    # What is escaped here must not be taken for what the name itself holds.
    return '"' + shown(name.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def shown_files(names: Iterable[str]) -> str:
    """Return the names of files as a list in which each can be told from the next."""
    return ", ".join(shown_file(name) for name in names)


def _escape(found: re.Match[str]) -> str:
    letter = found[0]
    if letter in _SHORT:
        return _SHORT[letter]
    code = ord(letter)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004  # what two digits can say


def counted(count: int, thing: str) -> str:
    """Return how many there are of *thing*, whose name takes an s."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
