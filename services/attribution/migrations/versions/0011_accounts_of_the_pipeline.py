"""The reports of the pipeline also by account."""

from alembic import op

from shared.db import run_sql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Nobody has an account here until something is told of them again, or the projection is rebuilt: so far everything
# counts under none, and moves from there by the difference. What tells how long something took has sums by month only.
PROJECTION = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE attribution_projection.circumstances ADD COLUMN IF NOT EXISTS account text NOT NULL DEFAULT '(not set)';
INSERT INTO attribution_projection.mark_sums SELECT (moved).* FROM (
    SELECT jsonb_populate_record(sums, '{"dimension": "account", "key": "(not set)"}') AS moved
    FROM attribution_projection.mark_sums AS sums
    WHERE dimension = 'all' AND (level = 'month' OR kind NOT IN (
        'lead_next', 'lead_last', 'deal_next', 'deal_last', 'captured', 'mql', 'offered', 'won', 'lost'))
) AS under_none ON CONFLICT DO NOTHING;
"""


def upgrade() -> None:
    """Add the column and its sums; a new installation has the column from projection.sql already, and no sums."""
    run_sql(op, PROJECTION)
