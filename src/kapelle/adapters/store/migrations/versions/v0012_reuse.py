"""Programs that go on to another task of their run."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("home", sa.Text(), nullable=True))
    op.add_column("spares", sa.Column("run_id", sa.Text(), nullable=True))
    op.add_column("spares", sa.Column("home", sa.Text(), nullable=True))
    op.add_column("spares", sa.Column("offset", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("spares", sa.Column("bounded", sa.Integer(), nullable=False, server_default="0"))
