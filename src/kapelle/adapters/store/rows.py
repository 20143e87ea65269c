"""Rows and dataclasses: one mapper for all tables, built once from the fields and their types."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from sqlalchemy import Connection, Table, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

R = TypeVar("R")
Convert = Callable[[Any], Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REMEMBERED = 256
"""How many decoded values of a frozen field are kept."""
MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """Return *moment* as microseconds since 1970: exact, and sorted as times are."""
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
        return (lambda value: None if value is None else to(value)), (lambda value: None if value is None else back(value))
    if bare in {str, int, float}:
        return _same, _same
    if bare is bool:
        return int, bool
    if bare is datetime:
        return to_microseconds, from_microseconds
    if isinstance(bare, type) and issubclass(bare, Enum):
        return (lambda value: value.value), bare
    return _json(bare)


def _json(hint: Any) -> tuple[Convert, Convert]:
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    return (lambda value: adapter.dump_json(value).decode()), adapter.validate_json


class Statement:
    """A statement built by SQLAlchemy Core and compiled once to text: building it anew costs more than running it."""

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = clause.compile(dialect=dialect)
        self.text = str(compiled)
        self._names: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._fixed: dict[str, Any] = {name: value for name, value in compiled.params.items() if value is not None}

    def run(self, connection: Connection, **values: Any) -> Sequence[Any]:
        """Run it and return all rows."""
        return connection.exec_driver_sql(self.text, self._in_order(values)).fetchall()

    def do(self, connection: Connection, **values: Any) -> int:
        """Run it and return how many rows it changed."""
        return connection.exec_driver_sql(self.text, self._in_order(values)).rowcount

    def do_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each of *rows*."""
        if rows:
            connection.exec_driver_sql(self.text, [self._in_order(row) for row in rows])

    def _in_order(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(values[name] if name in values else self._fixed[name] for name in self._names)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Field:
    name: str
    to: Convert
    back: Convert


class Mapper(Generic[R]):
    """How the dataclass *kind* is kept in *table*: fields and columns of the same name.

    *frozen* fields are written by ``add`` and never by ``put``, and so are decoded once for each key; *extra* columns are
    computed by functions of the object.
    """

    def __init__(
        self,
        kind: type[R],
        table: Table,
        dialect: Dialect,
        *,
        frozen: Sequence[str] = (),
        extra: Mapping[str, Convert] | None = None,
    ) -> None:
        self.kind = kind
        self.table = table
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind) if field.name in table.c]  # pyright: ignore[reportArgumentType]
        self._fields = [_Field(name=name, to=to, back=back) for name in names for to, back in [_converters(hints[name])]]
        self._extra = dict(extra or {})
        self._decoded: dict[str, dict[Any, Any]] = {name: {} for name in frozen}
        self.columns = [table.c[name] for name in names]
        self._keys = [column.name for column in table.primary_key] if "seq" not in table.c else [self._unique(table)]
        written = [*names, *self._extra]
        self._add = Statement(insert_into(table, dialect).values({name: bindparam(name) for name in written}), dialect)
        changing = [name for name in written if name not in self._keys and name not in frozen]
        self._put = Statement(self._upsert(table, dialect, written, changing), dialect)
        self._update: Statement | None = None
        if frozen:
            clause = table.update().values({name: bindparam(f"new_{name}") for name in changing})
            for key in self._keys:
                clause = clause.where(table.c[key] == bindparam(f"key_{key}"))
            self._update = Statement(clause, dialect)
        self._changing = changing
        key = self._keys[0]
        self._get = Statement(select(*self.columns).where(table.c[key] == bindparam("key")), dialect)

    @staticmethod
    def _unique(table: Table) -> str:
        return next(column.name for column in table.c if column.unique)

    def _upsert(self, table: Table, dialect: Dialect, written: Sequence[str], changing: Sequence[str]) -> ClauseElement:
        clause = insert_into(table, dialect).values({name: bindparam(name) for name in written})
        if not changing:
            return clause.on_conflict_do_nothing()
        return clause.on_conflict_do_update(
            index_elements=[table.c[key] for key in self._keys],
            set_={name: clause.excluded[name] for name in changing},
        )

    def values(self, thing: R) -> dict[str, Any]:
        """Return the columns of *thing*."""
        return self._values(thing, [*(field.name for field in self._fields), *self._extra])

    def _values(self, thing: R, names: Sequence[str]) -> dict[str, Any]:
        wanted = frozenset(names)
        row = {field.name: field.to(getattr(thing, field.name)) for field in self._fields if field.name in wanted}
        row |= {name: compute(thing) for name, compute in self._extra.items() if name in wanted}
        return row

    def load(self, row: Sequence[Any]) -> R:
        """Return what *row*, selected by ``columns``, holds."""
        pairs = list(zip(self._fields, row, strict=True))
        if not self._decoded:
            return self.kind(**{field.name: field.back(value) for field, value in pairs})
        key = next(value for field, value in pairs if field.name == self._keys[0])
        return self.kind(
            **{
                field.name: self._once(field, key, value) if field.name in self._decoded else field.back(value)
                for field, value in pairs
            }
        )

    def _once(self, field: _Field, key: Any, value: Any) -> Any:
        """Return a frozen field, decoded when it is first seen: a run's specification may hold thousands of tasks."""
        known = self._decoded[field.name]
        if key not in known:
            if len(known) >= REMEMBERED:
                known.pop(next(iter(known)), None)
            known[key] = field.back(value)
        return known[key]

    def add(self, connection: Connection, things: Sequence[R]) -> None:
        """Insert *things*, none of which is there."""
        self.add_values(connection, [self.values(thing) for thing in things])

    def add_values(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert *rows*, made by ``values`` and completed by the caller."""
        self._add.do_many(connection, rows)

    def put(self, connection: Connection, thing: R) -> None:
        """Insert or replace *thing*; with frozen fields it must be there and they stay."""
        if self._update is None:
            self._put.do(connection, **self.values(thing))
            return
        row = self._values(thing, [*self._changing, *self._keys])
        changes = {f"new_{name}": row[name] for name in self._changing}
        self._update.do(connection, **changes, **{f"key_{key}": row[key] for key in self._keys})

    def get(self, connection: Connection, key: str) -> R | None:
        """Return the thing whose (first) key is *key*, or None."""
        rows = self._get.run(connection, key=key)
        return self.load(rows[0]) if rows else None


def insert_into(table: Table, dialect: Dialect) -> Any:
    """Return an INSERT that can say what to do about a conflict, in the words of *dialect*."""
    return postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)
