"""Critical paths, how long similar tasks took, and the due tasks of one run."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("path", sa.Float(), nullable=False, server_default="0"))
    ready = sa.text("state = 'pending' AND unmet = 0 AND held = 0 AND unapproved = 0")
    op.create_index("tasks_ready_of_run", "tasks", ["run_id", "rank", "task_id"], sqlite_where=ready, postgresql_where=ready)
    op.create_table(
        "took",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", "config"),
    )
