"""Specifications are apart: a row that changes with every task is no longer rewritten with all that was submitted."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for name, key in (("runs", "run_id"), ("tasks", "task_id")):
        specs = f"{name[:-1]}_specs"
        op.create_table(
            specs,
            sa.Column(key, sa.Text(), nullable=False),
            sa.Column("spec", sa.Text(), nullable=False),
            sa.PrimaryKeyConstraint(key),
        )
        old, new = (sa.table(table, sa.column(key), sa.column("spec")) for table in (name, specs))
        op.execute(new.insert().from_select([key, "spec"], sa.select(old.c[key], old.c.spec)))
        op.drop_column(name, "spec")
