"""What one transaction knows of a table: written once at its end, however often it was put in between.

A task goes through several states in one transaction, and a run counts down once for each of its tasks. Things are immutable,
so the newest one stands for all before it. Whoever asks for a key gets what was put last; before a query whose answer depends
on columns that may have changed, ``flush`` writes what is not written yet.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast

from kapelle.adapters.store.rows import Mapper
from kapelle.core.frozen import replace

R = TypeVar("R")


class Known(Generic[R]):
    """The things of one table, in one transaction."""

    def __init__(self, connection: sqlite3.Connection, mapper: Mapper[R]) -> None:
        self._at = connection
        self._rows = mapper
        self._seen: dict[str, R] = {}
        self._unwritten: dict[str, R] = {}
        self.puts = 0
        """How often something was put or added."""

    def add(self, things: Sequence[R]) -> None:
        """Insert *things*, none of which is there."""
        self._rows.add(self._at, things)
        self.puts += 1
        for thing in things:
            self._seen[getattr(thing, self._rows.key)] = thing

    def get(self, key: str) -> R | None:
        """Return the thing whose key is *key*, or None."""
        found = self._seen.get(key)
        if found is None:
            found = self._rows.get(self._at, key)
            if found is not None:
                self._seen[key] = found
        return found

    def put(self, thing: R) -> None:
        """Insert or replace *thing*; where one of its fields never changes, it must be there and that field stays."""
        key = getattr(thing, self._rows.key)
        if self._rows.apart is not None:
            before = self.get(key)
            if before is None:
                return
            name = self._rows.apart
            if getattr(thing, name) is not getattr(before, name):
                thing = replace(cast("Any", thing), **{name: getattr(before, name)})
        self._seen[key] = self._unwritten[key] = thing
        self.puts += 1

    def load(self, rows: Sequence[Any]) -> list[R]:
        """Return what *rows*, selected by the mapper's columns, hold; of what is known already, the thing as it is now."""
        found: list[R] = []
        for row in rows:
            key = self._rows.key_of(row)
            thing = self._seen.get(key)
            if thing is None:
                thing = self._seen[key] = self._rows.load(self._at, row)
            found.append(thing)
        return found

    def flush(self) -> None:
        """Write what was put and is not written yet."""
        if self._unwritten:
            things, self._unwritten = list(self._unwritten.values()), {}
            self._rows.put(self._at, *things)
