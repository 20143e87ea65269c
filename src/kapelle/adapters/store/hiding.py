"""The connection that writes: whatever is written through it, no known value of a secret is in it.

What agents print is cleaned before it is kept. Not all that they say comes that way: the name of a host that they asked for, or
a command that waits for an answer, come by sockets of their own. So the last place before the disk looks, too.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from kapelle.core.hiding import NOTHING, Hiding


def _nothing() -> Hiding:
    return NOTHING


class HidingConnection(sqlite3.Connection):
    """A connection whose cursors hide what ``hiding`` returns; where that is nothing, they are the driver's own."""

    hiding: Callable[[], Hiding] = staticmethod(_nothing)

    def cursor(self, *_: Any) -> sqlite3.Cursor:  # type: ignore[override]
        """Return a new one."""
        hiding = self.hiding()
        if not hiding:
            return super().cursor()
        made = super().cursor(HidingCursor)
        made.hidden = hiding
        return made


class HidingCursor(sqlite3.Cursor):
    """See ``HidingConnection``."""

    hidden: Hiding = NOTHING

    def execute(self, sql: str, parameters: Any = (), /) -> Self:
        """See ``sqlite3.Cursor``; its parameters are in order."""
        super().execute(sql, self._clean(parameters))
        return self

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Self:
        """See ``sqlite3.Cursor``; their parameters are in order."""
        super().executemany(sql, [self._clean(row) for row in parameters])
        return self

    def _clean(self, values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(self.hidden.hide_text(value) if isinstance(value, str) else value for value in values)
