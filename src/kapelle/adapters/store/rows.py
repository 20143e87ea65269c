"""Rows and dataclasses: statements that are compiled already, and one mapper for all tables.

``clauses`` makes them with SQLAlchemy Core. This module does without it: loading it takes longer than most commands take.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property, lru_cache
from operator import attrgetter
from threading import Lock
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from kapelle.adapters.store.codecs import Codec
from kapelle.core.frozen import frozen

R = TypeVar("R")
Convert = Callable[[Any], Any]

ESCAPE = "\\"
"""What stands before a letter of a LIKE pattern that is no wildcard."""

LONGEST_BODY = 64 << 20
"""Bytes of a request."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REMEMBERED = 4096
"""How many values of a column that never changes are kept."""
ROWS = 512
"""How many rows of a table are kept with what they hold."""
LONGEST_ROW = 4_000
"""Letters of a row that is kept."""
MICROSECOND = timedelta(microseconds=1)


@lru_cache(maxsize=1024)
def to_microseconds(moment: datetime) -> int:
    """Return *moment* as microseconds since 1970: exact, and sorted as times are."""
    # Remembered, since everything in a transaction happens at the same moment.
    return (moment - EPOCH) // MICROSECOND


def from_microseconds(count: int) -> datetime:
    """Return the moment *count* microseconds after 1970, in UTC."""
    return EPOCH + timedelta(microseconds=count)


def _to_count(time: timedelta) -> int:
    return time // MICROSECOND


def _from_count(count: int) -> timedelta:
    return timedelta(microseconds=count)


def _same(value: Any) -> Any:
    return value


def _converters(hint: Any) -> tuple[Convert, Convert]:
    """Return how a field of the type *hint* goes into a column and comes back."""
    # A NewType of str is a str.
    bare = getattr(hint, "__supertype__", hint)
    if get_origin(bare) in {Union, UnionType} and NoneType in get_args(bare):
        inner = [kind for kind in get_args(bare) if kind is not NoneType]
        to, back = _converters(inner[0]) if len(inner) == 1 else _json(bare)
        # What is None in a column stays None whatever the field is: Mapper sees to it.
        return (_same if to is _same else lambda value: None if value is None else to(value)), back
    if bare in {str, int, float}:
        return _same, _same
    if bare is bool:
        return int, bool
    if bare is datetime:
        return to_microseconds, from_microseconds
    if bare is timedelta:
        return _to_count, _from_count
    if isinstance(bare, type) and issubclass(bare, Enum):
        return attrgetter("value"), bare
    return _json(bare)


def _json(hint: Any) -> tuple[Convert, Convert]:
    codec = Codec(hint)
    return codec.write, codec.read


@frozen
class Text:
    """A compiled statement."""

    text: str
    names: tuple[str, ...]
    """The parameters, in the order in which the text has them."""
    fixed: Mapping[str, Any]
    """Parameters whose values are always the same."""


class Statement:
    """A statement that is compiled once, when it is first run: building it anew costs more than running it.

    It is run by the driver's own cursor: of SQLAlchemy's result, which describes every column anew, nothing would be used.
    """

    def __init__(self, compiled: Callable[[], Text]) -> None:
        self._compile = compiled

    @cached_property
    def compiled(self) -> Text:
        """The statement as it is run."""
        return self._compile()

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order in which the text has them."""
        return self.compiled.names

    def run(self, connection: sqlite3.Connection, **values: Any) -> Sequence[Any]:
        """Run it and return all rows."""
        cursor = connection.cursor()
        try:
            cursor.execute(self.compiled.text, self._in_order(values))
            return cursor.fetchall()
        finally:
            cursor.close()

    def do(self, connection: sqlite3.Connection, **values: Any) -> int:
        """Run it and return how many rows it changed."""
        cursor = connection.cursor()
        try:
            cursor.execute(self.compiled.text, self._in_order(values))
            return cursor.rowcount
        finally:
            cursor.close()

    def do_many(self, connection: sqlite3.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each of *rows*."""
        self.do_each(connection, [self._in_order(row) for row in rows])

    def do_each(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Run it once for each of *rows*, whose values are in the order of ``names``."""
        if not rows:
            return
        cursor = connection.cursor()
        try:
            cursor.executemany(self.compiled.text, rows)
        finally:
            cursor.close()

    def _in_order(self, values: Mapping[str, Any]) -> Sequence[Any]:
        # A list is made faster than a tuple, and all of this is done for every statement.
        fixed, names = self.compiled.fixed, self.compiled.names
        return (
            [values[name] if name in values else fixed[name] for name in names] if fixed else [values[name] for name in names]
        )


class _Lately:
    """What was needed lately; the writer's thread and the reader's share it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Any, Any] = {}
        self._lock = Lock()
        self.get = self._kept.get

    def keep(self, key: Any, value: Any) -> None:
        """Remember *value* of *key*, and forget what was remembered longest ago when there is too much."""
        with self._lock:
            self._kept[key] = value
            if len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]


@frozen
class _Field:
    name: str
    to: Convert
    back: Convert


class _Packer:
    """Packs the columns *names* of an object into a row, in this order."""

    def __init__(self, names: Sequence[str], fields_: Mapping[str, _Field], computed: Mapping[str, Convert]) -> None:
        # What is computed from the whole object takes its place afterwards.
        kept = [name if name in fields_ else next(iter(fields_)) for name in names]
        self._pick = attrgetter(*kept) if len(kept) > 1 else _one(kept[0])
        self._converted = [
            (place, fields_[name].to) for place, name in enumerate(names) if name in fields_ and fields_[name].to is not _same
        ]
        self._computed = [(place, computed[name]) for place, name in enumerate(names) if name in computed]

    def __call__(self, thing: Any) -> list[Any]:
        row = list(self._pick(thing))
        for place, to in self._converted:
            row[place] = to(row[place])
        for place, compute in self._computed:
            row[place] = compute(thing)
        return row


def _one(name: str) -> Callable[[Any], tuple[Any, ...]]:
    get = attrgetter(name)
    return lambda thing: (get(thing),)


@frozen
class Apart:
    """Where a field is that has a table of its own."""

    name: str
    read: Statement
    """By ``key``."""
    add: Statement
    """Key and value, in this order."""


@frozen
class Layout:
    """How a table keeps a dataclass: fields and columns of the same name."""

    columns: Sequence[str]
    key: str
    add: Statement
    put: Statement
    """Its parameters may begin with ``new_``."""
    get: Statement
    """By ``key``."""
    apart: Apart | None = None
    computed: Mapping[str, Convert] = field(default_factory=dict[str, Convert])
    """Columns that are no fields, and how they come from the object."""
    numbered: str | None = None
    """A computed column that gets each object's place among those that are added together."""


class Mapper(Generic[R]):
    """How the dataclass *kind* goes into its table and comes back.

    One field may be apart, in a table of its own by the same key: it is written by ``add`` and never by ``put``, and it may
    be big (a run's specification holds all of its tasks), so it is read and decoded when it is first needed, and remembered.

    Every pass of a leader reads what is at work, and most of it is as it was: of a row that was loaded lately, what it holds is
    remembered. Things are immutable, and whoever puts one writes another row.
    """

    def __init__(self, kind: type[R], layout: Layout) -> None:
        self.kind = kind
        self.layout = layout
        self.key = layout.key
        self.apart = layout.apart.name if layout.apart is not None else None
        hints = get_type_hints(kind)
        self._fields = [
            _Field(name=name, to=to, back=back) for name in layout.columns for to, back in [_converters(hints[name])]
        ]
        self._by_name = {entry.name: entry for entry in self._fields}
        self._key_place = list(layout.columns).index(layout.key)
        self._remembered = None if layout.apart is None else _Remembered(layout.apart, hints[layout.apart.name])
        self._loaded = _Lately(ROWS)

    @cached_property
    def _to_add(self) -> _Packer:
        return _Packer(self.layout.add.names, self._by_name, self.layout.computed)

    @cached_property
    def _to_put(self) -> _Packer:
        names = [name.removeprefix("new_") for name in self.layout.put.names]
        return _Packer(names, self._by_name, self.layout.computed)

    def key_of(self, row: Sequence[Any]) -> Any:
        """Return the (first) key of *row*, selected by ``columns``."""
        return row[self._key_place]

    def load(self, connection: sqlite3.Connection, row: Sequence[Any]) -> R:
        """Return what *row*, selected by ``columns``, holds."""
        found = self._loaded.get(row)
        apart = self._remembered.get(connection, self.key_of(row)) if self._remembered is not None else None
        # The same key may be in another store of this process, a copy maybe, and stand for something else there.
        if found is None or (self._remembered is not None and getattr(found, self._remembered.name) is not apart):
            found = self._load(row, apart)
            if sum(len(value) for value in row if isinstance(value, str)) <= LONGEST_ROW:
                self._loaded.keep(row, found)
        return found

    def _load(self, row: Sequence[Any], apart: Any) -> R:
        values: dict[str, Any] = {}
        for entry, value in zip(self._fields, row, strict=True):
            values[entry.name] = value if value is None or entry.back is _same else entry.back(value)
        if self._remembered is not None:
            values[self._remembered.name] = apart
        return self.kind(**values)

    def add(self, connection: sqlite3.Connection, things: Sequence[R]) -> None:
        """Insert *things*, none of which is there."""
        rows = [self._to_add(thing) for thing in things]
        if self.layout.numbered is not None:
            place = self.layout.add.names.index(self.layout.numbered)
            for number, row in enumerate(rows):
                row[place] = number
        self.layout.add.do_each(connection, rows)
        if self._remembered is not None:
            name = self._remembered.name
            self._remembered.add(connection, [(getattr(thing, self.key), getattr(thing, name)) for thing in things])

    def forget_written(self) -> None:
        """Forget what ``apart_written`` has written."""
        if self._remembered is not None:
            self._remembered.forget_written()

    def apart_written(self, value: Any) -> str:
        """Return *value* of the field apart as it stands in its table; added after this, it is not written again.

        It may be long: whoever calls this says ``forget_written`` at the end.
        """
        if self._remembered is None:
            raise TypeError(f"no field of {self.kind.__name__} is apart")
        return self._remembered.written(value)

    def put(self, connection: sqlite3.Connection, *things: R) -> None:
        """Insert or replace *things*; with a field apart they must be there, and it stays."""
        self.layout.put.do_each(connection, [self._to_put(thing) for thing in things])

    def get(self, connection: sqlite3.Connection, key: str) -> R | None:
        """Return the thing whose (first) key is *key*, or None."""
        rows = self.layout.get.run(connection, key=key)
        return self.load(connection, rows[0]) if rows else None


class _Remembered:
    """A field in a table of its own; its values never change, and the last ones that were needed are remembered."""

    def __init__(self, apart: Apart, hint: Any) -> None:
        self.name = apart.name
        self._to, self._back = _converters(hint)
        self._read, self._add = apart.read, apart.add
        self._known = _Lately(REMEMBERED)
        self._written: tuple[Any, str] | None = None
        """The value that was written last, and how."""

    def add(self, connection: sqlite3.Connection, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Insert keys with their values."""
        self._add.do_each(connection, [(key, self.written(value)) for key, value in pairs])
        for key, value in pairs:
            self._known.keep(key, value)

    def written(self, value: Any) -> str:
        """Return *value* as it stands in the table."""
        # Stores of one process share it, each with a thread that writes: what is found is looked at once.
        found = self._written
        if found is None or found[0] is not value:
            found = self._written = (value, self._to(value))
        return found[1]

    def forget_written(self) -> None:
        """Forget what was written and not added."""
        self._written = None

    def get(self, connection: sqlite3.Connection, key: Any) -> Any:
        """Return the value of *key*, which has a row."""
        found = self._known.get(key, self)
        if found is self:
            found = self._back(self._read.run(connection, key=key)[0][0])
            self._known.keep(key, found)
        return found
