"""The scores that the scoring document names beside the main one, for rules that read them."""

from alembic import op

from shared.db import run_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# A new installation has the table from projection.sql already.
LEAD_SCORES = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO nurture_projection;
CREATE TABLE IF NOT EXISTS lead_scores (
    lead_id text PRIMARY KEY,
    revision bigint NOT NULL,
    scores jsonb NOT NULL
) WITH (fillfactor = 70);
SET LOCAL search_path TO nurture;
"""


def upgrade() -> None:
    """Make the table."""
    run_sql(op, LEAD_SCORES)
