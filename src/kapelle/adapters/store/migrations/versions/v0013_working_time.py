"""For how long agents of a project or an account worked and stood still; which budgets it was warned of."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("agents", sa.Column("rested", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("project", sa.Text(), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("account_id", sa.Text(), nullable=False, server_default=""))
    spec = "(SELECT json_extract(spec, '$.project') FROM run_specs WHERE run_specs.run_id = runs.run_id)"
    # What a run's calls were booked to: one that made none has not worked, either.
    account = "(SELECT account_id FROM calls WHERE calls.run_id = runs.run_id LIMIT 1)"
    op.execute(f"UPDATE runs SET project = coalesce({spec}, ''), account_id = coalesce({account}, '')")  # noqa: S608  # no value of a user's
    op.create_index("events_warned", "events", ["seq"], sqlite_where=sa.text("kind = 'budget.warned'"))
