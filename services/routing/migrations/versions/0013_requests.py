"""What sequences have reps told, in their own words."""

from alembic import op

from shared.db import run_sql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = """
-- What a notice says that a sequence asked for, sealed with the lead's key.
CREATE TABLE notice_words (
    about text PRIMARY KEY,
    lead_id text NOT NULL,
    sealed text NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX notice_words_lead ON notice_words (lead_id);
"""


def upgrade() -> None:
    """Make the table."""
    run_sql(op, TABLES)
