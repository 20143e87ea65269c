"""Accounts, and what an attempt remembers of errors of the model API."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=True),
        sa.Column("resets_at", sa.BigInteger(), nullable=True),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("refusals", sa.Integer(), nullable=False),
        sa.Column("tried_by", sa.Text(), nullable=True),
        sa.Column("started", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account_id"),
    )
    op.add_column("attempts", sa.Column("interrupted_at", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("overflows", sa.Integer(), server_default="0", nullable=False))
    op.add_column("attempts", sa.Column("overflow_calls", sa.Integer(), server_default="0", nullable=False))
