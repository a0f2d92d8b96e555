"""The segments that people are in."""

from alembic import op

from shared.db import run_sql

revision = "0008"
down_revision = "0007"

# A new installation has the table from projection.sql already.
TABLES = """
SET LOCAL lock_timeout = '5s';
CREATE TABLE IF NOT EXISTS nurture_projection.segments (
    lead_id text NOT NULL,
    segment_id text NOT NULL,
    revision bigint NOT NULL,
    member boolean NOT NULL,
    PRIMARY KEY (lead_id, segment_id)
);
"""


def upgrade() -> None:
    """Make the table; it fills as segments are told."""
    run_sql(op, TABLES)
