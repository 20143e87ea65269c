"""Agents are frozen and stopped by people, and tasks paused one by one."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("paused", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("agents", sa.Column("frozen_by", sa.Text(), nullable=False, server_default=""))
    op.add_column("agents", sa.Column("frozen_at", sa.BigInteger(), nullable=True))
    op.add_column("agents", sa.Column("ends_at", sa.BigInteger(), nullable=True))
    op.add_column("agents", sa.Column("by_hand", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("held_by", sa.Text(), nullable=False, server_default=""))
    op.add_column("prompts", sa.Column("sender", sa.Text(), nullable=False, server_default=""))
    op.create_index("agents_of_task", "agents", ["task_id", "created_at"])
