"""Rows and dataclasses: one mapper for all tables, built once from the fields and their types."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property, lru_cache
from operator import attrgetter
from threading import Lock
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from sqlalchemy import Connection, Table, bindparam, select
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

R = TypeVar("R")
Convert = Callable[[Any], Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REMEMBERED = 4096
"""How many values of a column that never changes are kept."""
MICROSECOND = timedelta(microseconds=1)


@lru_cache(maxsize=1024)
def to_microseconds(moment: datetime) -> int:
    """Return *moment* as microseconds since 1970: exact, and sorted as times are."""
    # Remembered, since everything in a transaction happens at the same moment.
    return (moment - EPOCH) // MICROSECOND


def from_microseconds(count: int) -> datetime:
    """Return the moment *count* microseconds after 1970, in UTC."""
    return EPOCH + timedelta(microseconds=count)


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
    if isinstance(bare, type) and issubclass(bare, Enum):
        return attrgetter("value"), bare
    return _json(bare)


def _json(hint: Any) -> tuple[Convert, Convert]:
    made: list[TypeAdapter[Any]] = []

    def adapter() -> TypeAdapter[Any]:
        # When it is first needed: it takes milliseconds, and most commands need few of them.
        if not made:
            made.append(TypeAdapter(hint))
        return made[0]

    return (lambda value: adapter().dump_json(value).decode()), (lambda text: adapter().validate_json(text))


class Statement:
    """A statement built by SQLAlchemy Core and compiled once to text: building it anew costs more than running it.

    It is run by the driver's own cursor: of SQLAlchemy's result, which describes every column anew, nothing would be used.
    """

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        self._clause = clause
        self._dialect = dialect

    @cached_property
    def _compiled(self) -> tuple[str, tuple[str, ...], dict[str, Any]]:
        compiled: Any = self._clause.compile(dialect=self._dialect)
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        return str(compiled), tuple(compiled.positiontup or ()), fixed

    @property
    def text(self) -> str:
        """What the database is told."""
        return self._compiled[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order in which the text has them."""
        return self._compiled[1]

    def run(self, connection: Connection, **values: Any) -> Sequence[Any]:
        """Run it and return all rows."""
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self.text, self._in_order(values))
            return cursor.fetchall()
        finally:
            cursor.close()

    def do(self, connection: Connection, **values: Any) -> int:
        """Run it and return how many rows it changed."""
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self.text, self._in_order(values))
            return cursor.rowcount
        finally:
            cursor.close()

    def do_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each of *rows*."""
        self.do_each(connection, [self._in_order(row) for row in rows])

    def do_each(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Run it once for each of *rows*, whose values are in the order of ``names``."""
        if not rows:
            return
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(self.text, rows)
        finally:
            cursor.close()

    def _in_order(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        _, names, fixed = self._compiled
        return tuple(values[name] if name in values else fixed[name] for name in names)


@dataclass(frozen=True, kw_only=True, slots=True)
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


class Mapper(Generic[R]):
    """How the dataclass *kind* is kept in *table*: fields and columns of the same name.

    One field may be *apart*, in a table of its own by the same key: it is written by ``add`` and never by ``put``, and it may
    be big (a run's specification holds all of its tasks), so it is read and decoded when it is first needed, and remembered.
    *extra* columns are computed by functions of the object, *once* names those of them that ``put`` leaves alone; the column
    *numbered* gets each object's place among those that are added together.
    """

    def __init__(
        self,
        kind: type[R],
        table: Table,
        dialect: Dialect,
        *,
        apart: tuple[str, Table] | None = None,
        extra: Mapping[str, Convert] | None = None,
        once: Sequence[str] = (),
        numbered: str | None = None,
    ) -> None:
        self.kind = kind
        self.apart = apart[0] if apart is not None else None
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind) if field.name in table.c]  # pyright: ignore[reportArgumentType]
        by_name = {name: _Field(name=name, to=to, back=back) for name in names for to, back in [_converters(hints[name])]}
        self._fields = list(by_name.values())
        self.columns = [table.c[field.name] for field in self._fields]
        keys = [column.name for column in table.primary_key] if "seq" not in table.c else [self._unique(table)]
        self.key = keys[0]
        self._key_place = self.columns.index(table.c[self.key])
        self._numbered = numbered
        self._by_name = by_name
        self._computed = computed = {**(extra or {}), **({numbered: _zero} if numbered is not None else {})}
        written = [*names, *computed]
        self._add = Statement(insert_into(table, dialect).values({name: bindparam(name) for name in written}), dialect)
        if apart is None:
            self._put = self._upsert(table, dialect, written, keys)
        else:
            changing = [name for name in written if name not in {*keys, *once, numbered}]
            self._put = self._update(table, dialect, changing, keys)
        self._get = Statement(select(*self.columns).where(table.c[self.key] == bindparam("key")), dialect)
        self._apart = None if apart is None else _Apart(apart[0], hints[apart[0]], apart[1], dialect)

    @staticmethod
    def _unique(table: Table) -> str:
        return next(column.name for column in table.c if column.unique)

    @staticmethod
    def _upsert(table: Table, dialect: Dialect, written: Sequence[str], keys: Sequence[str]) -> Statement:
        changing = [name for name in written if name not in keys]
        clause = insert_into(table, dialect).values({name: bindparam(name) for name in written})
        if not changing:
            return Statement(clause.on_conflict_do_nothing(), dialect)
        clause = clause.on_conflict_do_update(
            index_elements=[table.c[key] for key in keys],
            set_={name: clause.excluded[name] for name in changing},
        )
        return Statement(clause, dialect)

    @staticmethod
    def _update(table: Table, dialect: Dialect, changing: Sequence[str], keys: Sequence[str]) -> Statement:
        clause = table.update().values({name: bindparam(f"new_{name}") for name in changing})
        for key in keys:
            clause = clause.where(table.c[key] == bindparam(f"new_{key}"))
        return Statement(clause, dialect)

    @cached_property
    def _to_add(self) -> _Packer:
        return _Packer(self._add.names, self._by_name, self._computed)

    @cached_property
    def _to_put(self) -> _Packer:
        return _Packer([name.removeprefix("new_") for name in self._put.names], self._by_name, self._computed)

    def key_of(self, row: Sequence[Any]) -> Any:
        """Return the (first) key of *row*, selected by ``columns``."""
        return row[self._key_place]

    def load(self, connection: Connection, row: Sequence[Any]) -> R:
        """Return what *row*, selected by ``columns``, holds."""
        values: dict[str, Any] = {}
        for field, value in zip(self._fields, row, strict=True):
            values[field.name] = value if value is None or field.back is _same else field.back(value)
        if self._apart is not None:
            values[self._apart.name] = self._apart.get(connection, row[self._key_place])
        return self.kind(**values)

    def add(self, connection: Connection, things: Sequence[R]) -> None:
        """Insert *things*, none of which is there."""
        rows = [self._to_add(thing) for thing in things]
        if self._numbered is not None:
            place = self._add.names.index(self._numbered)
            for number, row in enumerate(rows):
                row[place] = number
        self._add.do_each(connection, rows)
        if self._apart is not None:
            self._apart.add(connection, [(getattr(thing, self.key), getattr(thing, self._apart.name)) for thing in things])

    def put(self, connection: Connection, *things: R) -> None:
        """Insert or replace *things*; with a field apart they must be there, and it stays."""
        self._put.do_each(connection, [self._to_put(thing) for thing in things])

    def get(self, connection: Connection, key: str) -> R | None:
        """Return the thing whose (first) key is *key*, or None."""
        rows = self._get.run(connection, key=key)
        return self.load(connection, rows[0]) if rows else None


class _Apart:
    """A field in a table of its own; its values never change, and the last ones that were needed are remembered."""

    def __init__(self, name: str, hint: Any, table: Table, dialect: Dialect) -> None:
        self.name = name
        self._to, self._back = _converters(hint)
        key, value = table.c
        self._read = Statement(select(value).where(key == bindparam("key")), dialect)
        self._add = Statement(
            insert_into(table, dialect).values({key.name: bindparam("a"), value.name: bindparam("b")}), dialect
        )
        self._known: dict[Any, Any] = {}
        # The writer's thread and the reader's share it.
        self._lock = Lock()

    def add(self, connection: Connection, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Insert keys with their values."""
        self._add.do_each(connection, [(key, self._to(value)) for key, value in pairs])
        for key, value in pairs:
            self._keep(key, value)

    def get(self, connection: Connection, key: Any) -> Any:
        """Return the value of *key*, which has a row."""
        found = self._known.get(key, self)
        if found is self:
            found = self._back(self._read.run(connection, key=key)[0][0])
            self._keep(key, found)
        return found

    def _keep(self, key: Any, value: Any) -> None:
        """Remember *value* of *key*, and forget what was remembered longest ago when there is too much."""
        with self._lock:
            self._known[key] = value
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]


def _zero(_: Any) -> int:
    return 0


def insert_into(table: Table, dialect: Dialect) -> Any:
    """Return an INSERT that can say what to do about a conflict, in the words of *dialect*."""
    # A dialect takes its time to load, and there is only one.
    if dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
