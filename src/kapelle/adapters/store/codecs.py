"""JSON of what stands in one column: specifications, bodies of requests, events.

Pydantic reads and writes a type quickest with what it builds for it, and building takes longer than writing does in most
commands. So it is built when something is read, or when much was written; until then each value is looked at anew, with the
same outcome.
"""

from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json

WORTH_IT = 1 << 16
"""Bytes that are written of a kind until building for it would have been quicker, about."""


class Codec:
    """Writes and reads what has the type *kind*; its fields *without* are not written.

    After *worth_it* bytes, it is written with what is built for it.
    """

    def __init__(self, kind: Any, *, without: AbstractSet[str] = frozenset(), worth_it: int = WORTH_IT) -> None:
        self._kind = kind
        self._worth_it = worth_it
        self._without = set(without) or None
        self._written = 0

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._kind)

    def write(self, value: Any) -> str:
        """Return *value* as JSON."""
        if self._written < self._worth_it:
            text = to_json(value, exclude=self._without, inf_nan_mode="null")
            self._written += len(text)
        else:
            text = self._adapter.serializer.to_json(value, exclude=self._without)
        return text.decode()

    def read(self, text: str | bytes) -> Any:
        """Return what the JSON *text* holds.

        Raises:
            ValueError: it holds nothing of the kind.
        """
        return self._adapter.validate_json(text)

    def take(self, found: Any) -> Any:
        """Return what *found*, made of what JSON is made of, holds.

        Raises:
            ValueError: it holds nothing of the kind.
        """
        return self._adapter.validate_python(found, strict=False)
