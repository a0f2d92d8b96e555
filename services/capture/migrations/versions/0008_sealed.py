"""What is known of people, sealed; answers that are kept, too."""

from alembic import op

from shared.db import run_sql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = """
SET LOCAL lock_timeout = '5s';

-- `sealed` holds the statements, with the key of the lead's person; in clear stand those that nobody sealed yet.
ALTER TABLE leads ADD COLUMN sealed text;
CREATE INDEX leads_in_clear ON leads (lead_id) WHERE statements <> '{}';
"""


def upgrade() -> None:
    """Add the columns; the worker seals what stands there in clear."""
    run_sql(op, TABLES)
