"""Budgets bound more than money, and calls know whose they are."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for name in ("project", "account_id"):
        op.add_column("calls", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.add_column("calls", sa.Column("settled", sa.Integer(), nullable=False, server_default="1"))
    on_their_way = sa.text("settled = 0")
    op.create_index("calls_on_their_way", "calls", ["at"], sqlite_where=on_their_way, postgresql_where=on_their_way)
    op.create_index("calls_of_project", "calls", ["project", "at"])
    op.create_index("calls_of_account", "calls", ["account_id", "at"])
    op.create_index("calls_at", "calls", ["at"])
    op.create_index("agents_of_run", "agents", ["run_id"])
    _rewrite("run_specs", "run_id", "spec", _of_run)
    _rewrite("task_specs", "task_id", "spec", _bounded)
    _rewrite("requests", "request_id", "body", _of_request)
    _rewrite("events", "seq", "body", _reached, sa.text("kind = 'budget.reached'"))


def _rewrite(name: str, key: str, column: str, change: Any, which: Any = None) -> None:
    table = sa.table(name, sa.column(key), sa.column(column))
    chosen = sa.select(table.c[key], table.c[column])
    bind = op.get_bind()
    for row in bind.execute(chosen if which is None else chosen.where(which)).fetchall():
        try:
            body = json.loads(row[1])
        except (TypeError, ValueError):
            # Something other than Kapelle wrote it; whoever reads it says so.
            continue
        if isinstance(body, dict):
            change(body)
            bind.execute(table.update().where(table.c[key] == row[0]).values({column: json.dumps(body, ensure_ascii=False)}))


def _bounded(spec: dict[str, Any]) -> None:
    usd = spec.pop("budget_usd", None)
    spec["budget"] = {"usd": usd}


def _of_run(spec: dict[str, Any]) -> None:
    for task in spec.get("tasks") or ():
        _bounded(task)
    _bounded(spec.setdefault("limits", {}))


def _of_request(body: dict[str, Any]) -> None:
    if isinstance(body.get("spec"), dict):
        _of_run(body["spec"])


def _reached(body: dict[str, Any]) -> None:
    body |= {"resource": "usd", "limit": body.pop("limit_usd", 0.0), "spent": body.pop("spent_usd", 0.0)}
