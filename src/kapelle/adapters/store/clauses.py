"""Statements and mappers made with SQLAlchemy Core: what ``statements`` is written with."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Generic

from sqlalchemy import BindParameter, Select, Table, bindparam, func, literal_column, select
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from kapelle.adapters.store import rows, schema
from kapelle.adapters.store.computed import zero
from kapelle.adapters.store.rows import Apart, Convert, Layout, R, Text


class Statement(rows.Statement):
    """A statement of Core in the words of *dialect*."""

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        def compiled() -> Text:
            found: Any = clause.compile(dialect=dialect)
            fixed = {name: value for name, value in found.params.items() if value is not None}
            return Text(text=str(found), names=tuple(found.positiontup or ()), fixed=fixed)

        super().__init__(compiled)


class Mapper(rows.Mapper[R], Generic[R]):
    """How the dataclass *kind* is kept in *table*.

    *apart* names a field that has a table of its own, and that table. *extra* columns are computed by functions of the object,
    *once* names those of them that ``put`` leaves alone; for *numbered* see ``Layout``.
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
        names = [field.name for field in fields(kind) if field.name in table.c]  # pyright: ignore[reportArgumentType]
        self.columns = [table.c[name] for name in names]
        keys = [column.name for column in table.primary_key] if "seq" not in table.c else [_unique(table)]
        computed = {**(extra or {}), **({numbered: zero} if numbered is not None else {})}
        written = [*names, *computed]
        if apart is None:
            put = _upsert(table, dialect, written, keys)
        else:
            put = _update(table, dialect, [name for name in written if name not in {*keys, *once, numbered}], keys)
        layout = Layout(
            columns=names,
            key=keys[0],
            add=Statement(insert_into(table, dialect).values({name: bindparam(name) for name in written}), dialect),
            put=put,
            get=Statement(select(*self.columns).where(table.c[keys[0]] == bindparam("key")), dialect),
            apart=None if apart is None else _apart(*apart, dialect),
            computed=computed,
            numbered=numbered,
        )
        super().__init__(kind, layout)


def _apart(name: str, table: Table, dialect: Dialect) -> Apart:
    key, value = table.c
    add = insert_into(table, dialect).values({key.name: bindparam("a"), value.name: bindparam("b")})
    return Apart(
        name=name,
        read=Statement(select(value).where(key == bindparam("key")), dialect),
        add=Statement(add, dialect),
    )


def _unique(table: Table) -> str:
    return next(column.name for column in table.c if column.unique)


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


def _update(table: Table, dialect: Dialect, changing: Sequence[str], keys: Sequence[str]) -> Statement:
    clause = table.update().values({name: bindparam(f"new_{name}") for name in changing})
    for key in keys:
        clause = clause.where(table.c[key] == bindparam(f"new_{key}"))
    return Statement(clause, dialect)


def insert_into(table: Table, dialect: Dialect) -> Any:
    """Return an INSERT that can say what to do about a conflict, in the words of *dialect*."""
    # A dialect takes its time to load, and there is only one.
    if dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def worked_since() -> Select[Any]:
    """Return a query for how long agents worked that ended after a time."""
    agents = schema.agents
    since: BindParameter[Any] = bindparam("since")
    began = func.max(agents.c.created_at, since)
    # Who stood still before *since* and worked on after it may have rested for longer than there is left.
    worked = func.max(agents.c.stopped_at - began - agents.c.rested, literal_column("0"))
    return select(func.coalesce(func.sum(worked), 0)).where(agents.c.stopped_at > since)
