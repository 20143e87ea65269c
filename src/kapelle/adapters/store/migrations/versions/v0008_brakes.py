"""Budgets that are spent are asked about, and everything can be halted."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "spent",
        sa.Column("spent_id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("key", "resource", "name", "run_id", "task_id")),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("limit", "spent")),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("more", sa.Float(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("answered_by", "note")),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("deadline_at", "settled_at", "over_at")),
        sa.PrimaryKeyConstraint("spent_id"),
    )
    standing = sa.text("over_at IS NULL")
    op.create_index("spent_standing", "spent", ["asked_at"], sqlite_where=standing, postgresql_where=standing)
    op.create_table(
        "halts",
        sa.Column("halt_id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("by", "reason")),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("lifted_at", sa.BigInteger(), nullable=True),
        sa.Column("lifted_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("halt_id"),
    )
    off = sa.text("lifted_at IS NULL")
    op.create_index("halts_standing", "halts", ["began_at"], sqlite_where=off, postgresql_where=off)
