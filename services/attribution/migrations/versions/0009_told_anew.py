"""Where the telling of a deal anew began."""

from alembic import op

from shared.db import run_sql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

PROJECTION = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE attribution_projection.deal_steps ADD COLUMN IF NOT EXISTS begins bigint NOT NULL DEFAULT 0;
"""


def upgrade() -> None:
    """Add the column; a new installation has it from projection.sql already."""
    run_sql(op, PROJECTION)
