"""Batches of the merge queue, suspects, protected files, and the proof of what was merged."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("changes", sa.Column("proof", sa.Text(), nullable=True))
    op.add_column("changes", sa.Column("batch_id", sa.Text(), nullable=True))
    op.add_column("changes", sa.Column("red", sa.Text(), nullable=False, server_default=""))
    op.add_column("changes", sa.Column("protected", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("changes", sa.Column("approved_by", sa.Text(), nullable=False, server_default=""))
    op.create_index("receipts_of_tree", "receipts", ["tree"])
    merged = sa.text("merged_as IS NOT NULL")
    op.create_index("changes_merged", "changes", ["merged_as"], sqlite_where=merged, postgresql_where=merged)
