"""Touches that were withdrawn, and how it is known that a machine made a touch."""

from alembic import op

from shared.db import run_sql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A new installation has these from projection.sql already. Of a version nobody asks for a default.
PROJECTION = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO attribution_projection;

CREATE TABLE IF NOT EXISTS withdrawals (
    origin text NOT NULL,
    touch_id text NOT NULL,
    reason text NOT NULL,
    event_id text NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (origin, touch_id)
);
ALTER TABLE touches ADD COLUMN IF NOT EXISTS automated_reason text,
    ADD COLUMN IF NOT EXISTS withdrawn boolean NOT NULL DEFAULT false;
ALTER TABLE touch_versions ADD COLUMN IF NOT EXISTS automated_reason text,
    ADD COLUMN IF NOT EXISTS withdrawn boolean NOT NULL DEFAULT false;
ALTER TABLE touch_versions ALTER COLUMN withdrawn DROP DEFAULT;

SET LOCAL search_path TO attribution;
"""


def upgrade() -> None:
    """Make the table and the columns."""
    run_sql(op, PROJECTION)
