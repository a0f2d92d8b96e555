"""Accounts that became other ones: what erased people did follows them."""

from alembic import op

from shared.db import run_sql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# A new installation has it already, from the projection as it stands. Nothing is filled: the topic is read from its
# beginning, and each merge that is told brings those whom it concerns.
PROJECTION = """
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path TO attribution_projection;
CREATE TABLE IF NOT EXISTS accounts (
    account_id text PRIMARY KEY,
    revision bigint NOT NULL,
    merged_into text
);
CREATE INDEX IF NOT EXISTS accounts_merged ON accounts (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX IF NOT EXISTS leads_erased ON leads (account_id) WHERE erased;
SET LOCAL search_path TO attribution;
"""


def upgrade() -> None:
    """Make the table and the indexes."""
    run_sql(op, PROJECTION)
