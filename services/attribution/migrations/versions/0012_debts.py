"""What is credited later than it changed."""

from alembic import op

from shared.db import run_sql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO attribution_projection;
CREATE TABLE IF NOT EXISTS credit_debts (
    conversion_id text PRIMARY KEY,
    touches integer NOT NULL,
    person_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    as_of timestamptz
);
CREATE INDEX IF NOT EXISTS credit_debts_turn ON credit_debts (touches, person_id, occurred_at, conversion_id);
SET LOCAL search_path TO attribution;
"""


def upgrade() -> None:
    """Make the table."""
    run_sql(op, TABLES)
