"""Offers that wait for an answer are found by when it is due: those whose time is not over are few, all others many."""

from alembic import op

from shared.db import run_sql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# A new installation has it already, from the projection as it stands.
INDEX = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO attribution_projection;
CREATE INDEX IF NOT EXISTS marks_due ON marks (((at AT TIME ZONE 'UTC') + lapse * interval '1 microsecond'))
    WHERE kind = 'sla' AND step = 'pending';
DROP INDEX IF EXISTS marks_pending;
SET LOCAL search_path TO attribution;
"""


def upgrade() -> None:
    """Put the index in the place of the one by when they were made."""
    run_sql(op, INDEX)
