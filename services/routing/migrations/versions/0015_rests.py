"""Until when an endpoint asked to be left alone, known to every worker."""

from alembic import op

from shared.db import run_sql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    run_sql(op, "SET LOCAL lock_timeout = '5s'; ALTER TABLE webhook_endpoints ADD COLUMN rest_until timestamptz;")
