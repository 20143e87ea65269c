"""Spares, and how many of them persons want."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "spares",
        sa.Column("agent_id", sa.Text(), primary_key=True),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("attempt_id", "workspace_id", "conversation_id", "make", "fit")
        ),
        sa.Column("term", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("host", "state", "path")),
        sa.Column("base", sa.Text()),
        sa.Column("first_port", sa.Integer()),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("process", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ready_at", sa.BigInteger()),
        sa.Column("looked_at", sa.BigInteger()),
        sa.Column("merged", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
    )
    op.create_table(
        "standing_pools",
        sa.Column("key", sa.Text(), primary_key=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("project", "config")),
        sa.Column("wanted", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("spec", "principal")),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "assignments",
        sa.Column("task_id", sa.Text(), primary_key=True),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("forced", sa.Integer(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
