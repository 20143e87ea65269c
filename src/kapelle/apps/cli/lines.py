"""Plain lines, and JSON: what is said without colours and tables, and without loading what makes them."""

import json
import sys
from typing import Any

from kapelle.core.plain_text import shown_block, shown_json


def say(text: str) -> None:
    """Print *text* as results are; the terminal breaks what is too long, and gives it back whole to whoever copies it."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """Print *text* beside the results, on standard error."""
    _write(sys.stderr, text)


def _write(stream: Any, text: str) -> None:
    if stream is None:
        # Whoever started the command has closed it.
        return
    stream.write(f"{shown_block(text)}\n")
    stream.flush()


def say_nobody_leads(then: str) -> None:
    """Say that nobody leads, and what happens *then*, when somebody does."""
    say(f"Nobody leads just now; {then} when somebody does: kapelle resume")


def print_json(value: Any) -> None:
    """Print *value* as JSON: readable in a terminal, one line in a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    # Where not every letter can be written, JSON's own escapes are what a reader of JSON understands.
    narrow = not sys.stdout.encoding.lower().startswith("utf")
    sys.stdout.write(shown_json(json.dumps(value, indent=indent, ensure_ascii=narrow)) + "\n")
    sys.stdout.flush()


def count_tokens(number: int) -> str:
    """Return a number of tokens in few letters."""
    thousand, million = 1_000, 1_000_000
    if number < thousand:
        return str(number)
    return f"{number / thousand:.1f}k" if number < million else f"{number / million:.1f}M"


def money(usd: float) -> str:
    """Return an amount of US dollars, to the cent or, below ten cents, more exactly."""
    ten_cents = 0.1
    return f"${usd:.2f}" if usd >= ten_cents or usd == 0 else f"${usd:.4f}"
